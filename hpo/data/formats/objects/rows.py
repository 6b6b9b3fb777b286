"""Objects (mappings of names to values) as Arrow tables, in batches."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from hpo.data.columns import as_rows
from hpo.errors import DataError

# A JSON column of several types: the type and the JSON of each value, to distinguish `1` from `"1"`.
MIXED = pa.struct({"type": pa.string(), "json": pa.string()})
BATCH = 20_000  # objects that exist at once besides the table: 1.4 million of them are 1.5 GB


def objects_to_rows(path: Path, objects: Iterable[Mapping[str, Any]]) -> Dataset:
    """Return objects as rows; a missing key is null. Raises `DataError` for a value that Arrow cannot store."""
    chunks: dict[str, list[pa.Array]] = {}
    done = 0
    batch: list[Mapping[str, Any]] = []
    for row in objects:
        batch.append(row)
        if len(batch) == BATCH:
            _append(path, chunks, batch, done)
            done += len(batch)
            batch = []
    if batch or not chunks:
        _append(path, chunks, batch, done)
    return as_rows(pa.table({name: _joined(parts) for name, parts in chunks.items()}))


def _append(path: Path, chunks: dict[str, list[pa.Array]], batch: list[Mapping[str, Any]], done: int) -> None:
    for name in dict.fromkeys([*chunks, *(name for row in batch for name in row)]):
        if name not in chunks:
            chunks[name] = [pa.nulls(done)] if done else []
        try:
            chunks[name].append(_column([row.get(name) for row in batch]))
        except (UnicodeEncodeError, OverflowError) as error:
            raise DataError(
                f"{path}, column {name!r}: a value that cannot be stored: {error}. A lone surrogate "
                "(\\ud800 to \\udfff) is not a character, and integers have at most 64 bits."
            ) from None


def _joined(parts: list[pa.Array]) -> pa.ChunkedArray:
    """Return the parts as one column; where their types differ, that of all their values."""
    kinds = {part.type for part in parts if not pa.types.is_null(part.type)}
    if kinds == {pa.int64(), pa.float64()}:
        kinds = {pa.float64()}
    if len(kinds) <= 1:
        kind = next(iter(kinds), pa.null())
        return pa.chunked_array([part.cast(kind) for part in parts], kind)
    return pa.chunked_array([_column([value for part in parts for value in _values(part)])])


def _values(part: pa.Array) -> list[Any]:
    if part.type != MIXED:
        values: list[Any] = part.to_pylist()
        return values
    return [None if value is None else json.loads(value["json"]) for value in part.to_pylist()]


def _column(values: list[Any]) -> pa.Array:
    """Return an Arrow array; one of type `MIXED` where the types differ, which is refused if the column is used."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {int, float} or len(kinds) == 1:
        try:
            return pa.array(values)
        except pa.ArrowException:
            kinds = set()  # lists or objects whose elements differ in type
    return pa.array([None if v is None else {"type": type(v).__name__, "json": json.dumps(v)} for v in values], MIXED)
