"""Parquet and Arrow files, recognized by their signatures."""

import pyarrow as pa
from datasets import Dataset

from hpo.data.formats.source import Content, Format, SourceFile
from hpo.errors import DataError


def _read_parquet(source: SourceFile) -> Content:
    import pyarrow.parquet as pq

    try:
        return Content({"": _decoded(pq.read_table(source.path))})
    except pa.ArrowException as error:
        raise DataError(f"{source.path}: not a readable parquet file: {str(error).splitlines()[0]}") from None


def _read_arrow(source: SourceFile) -> Content:
    """Read an Arrow stream, as `Dataset.save_to_disk` writes it, or an Arrow file (Feather)."""
    try:
        with pa.memory_map(str(source.path)) as file:
            try:
                return Content({"": _decoded(pa.ipc.open_stream(file).read_all())})
            except pa.ArrowInvalid:
                return Content({"": _decoded(pa.ipc.open_file(file).read_all())})
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{source.path}: not a readable Arrow file: {str(error).splitlines()[0]}") from None


def _decoded(table: pa.Table) -> Dataset:
    """Return the table with dictionary-encoded columns (pandas categories) decoded."""
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            values = table.column(index).cast(field.type.value_type)
            table = table.set_column(index, field.name, values)
    return Dataset(table)


PARQUET = Format(
    "parquet",
    frozenset({".parquet"}),
    lambda source: source.head.startswith(b"PAR1") or source.suffix == ".parquet",
    _read_parquet,
)
ARROW = Format(
    "Arrow",
    frozenset({".arrow", ".feather"}),
    lambda source: source.head.startswith((b"ARROW1", b"\xff\xff\xff\xff")) or source.suffix in (".arrow", ".feather"),
    _read_arrow,
)
