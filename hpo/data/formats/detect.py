"""The table of formats, in the order in which they are tried: the first that recognizes a file reads it."""

from pathlib import Path

from datasets import Dataset

from hpo.data.formats.binary import ARROW, PARQUET
from hpo.data.formats.conll import CONLL
from hpo.data.formats.delimited import TABLE
from hpo.data.formats.excel import EXCEL
from hpo.data.formats.lines import FASTTEXT, LINES
from hpo.data.formats.objects.layouts import JSON
from hpo.data.formats.rasa import RASA
from hpo.data.formats.source import Content, Format, SourceFile, decode
from hpo.errors import DataError

# The least specific is last: any text is lines of text.
FORMATS: tuple[Format, ...] = (PARQUET, ARROW, EXCEL, JSON, RASA, FASTTEXT, CONLL, TABLE, LINES)
# By their first bytes.
ARCHIVES = {
    **{b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip", b"BZh91AY&SY": "bzip2", b"\xfd7zXZ\x00": "xz"},
    **{b"7z\xbc\xaf\x27\x1c": "7z", b"\x28\xb5\x2f\xfd": "zstd", b"Rar!\x1a": "rar"},
}
SUFFIXES = frozenset().union(*(form.suffixes for form in FORMATS)) - {".txt", ".yml", ".yaml", ".xls"}
NAMES = ", ".join(form.name for form in FORMATS)


def read_content(path: Path, encoding: str = "utf-8", header: bool | None = None) -> Content:
    """Read a file, whatever its suffix, by the format of its content. The columns of text tables are strings.

    `header` is whether the first line of a table names its columns (None: detected). Raises `DataError` for a format
    that is not known, and for a file that is malformed or has no rows.
    """
    source = SourceFile(path, encoding, header)
    try:
        _refuse_archive(source)
        form = next((form for form in FORMATS if form.recognizes(source)), None)
        if form is None:
            decode(path, encoding)  # names the encoding, where it is text of another
            raise DataError(f"{path}: the format is not supported. Supported: {NAMES}.")
        content = form.read(source)
    except OSError as error:
        raise DataError(f"{path.absolute()}: cannot be read: {error.strerror or error}.") from error
    if not any(len(rows) for rows in content.splits.values()):
        raise DataError(f"{path}: a header and no rows below it: add the rows of your data.")
    return content


def _refuse_archive(source: SourceFile) -> None:
    """Raise `DataError` for a compressed file or an archive, whatever its suffix; Excel's files are zip files, too."""
    kind = next((name for start, name in ARCHIVES.items() if source.head.startswith(start)), None)
    if kind is not None and not EXCEL.recognizes(source):
        raise DataError(f"{source.path.absolute()}: is a {kind} file, whatever its name: unpack it, and name the file.")


def read_file(path: Path, encoding: str = "utf-8") -> Dataset:
    """Read the rows of a file that is one table, as `read_content`. Raises `DataError`."""
    splits = read_content(path, encoding).splits
    if len(splits) > 1:
        raise DataError(f"{path}: contains the splits {', '.join(splits)}: give a file with one of them.")
    return next(iter(splits.values()))
