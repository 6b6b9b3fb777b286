"""Readers of data files, one for each format; every error names the file, the line and what to do.

Text formats are read without type inference: `no`, `off` and `01` in a csv stay strings.
"""

import codecs
import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from hpo.errors import DataError

# A JSON column of several types: the type and the JSON of each value, to distinguish `1` from `"1"`.
MIXED = pa.struct({"type": pa.string(), "json": pa.string()})


def read_file(path: Path, encoding: str = "utf-8") -> Dataset:
    """Read a csv, tsv, json, jsonl, parquet, Arrow or CoNLL file; the columns of csv and tsv are strings.

    Raises `DataError` for another format, and for a file that is malformed or has no rows.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: '{path.suffix}' files are not supported. Supported: {', '.join(READERS)}.")
    try:
        rows = reader(path, encoding)
    except OSError as error:
        raise DataError(f"{path.absolute()}: cannot be read: {error.strerror or error}.") from error
    if len(rows) == 0:
        raise DataError(f"{path}: a header and no rows below it: add the rows of your data.")
    return rows


def decode(path: Path, encoding: str) -> str:
    """Return the text of a file, without a byte order mark.

    Raises `DataError` with the position of the first invalid byte, and an encoding that can decode the file.
    """
    try:
        known = codecs.lookup(encoding).name
    except LookupError:
        raise DataError(
            f"data.encoding: '{encoding}' is not a text encoding. Common ones: utf-8, utf-16, cp1252, latin-1."
        ) from None
    raw = path.read_bytes()
    if not raw.strip():
        raise DataError(f"{path}: the file is empty.")
    try:
        text = raw.decode("utf-8-sig" if known == "utf-8" else known)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not {encoding}: byte {error.start + 1} of the file is 0x{raw[error.start]:02x}. "
            f"It looks like {_likely_encoding(raw)}: set `data.encoding: {_likely_encoding(raw)}`, or save the file "
            "as utf-8."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(
            f"{path}, line {line}: a NUL character: this is not {encoding} text. `data.encoding: utf-16` may decode "
            "it; otherwise remove the character."
        )
    return text


def _likely_encoding(raw: bytes) -> str:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or raw[:1000].count(0) > 100:
        return "utf-16"
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _read_csv(path: Path, encoding: str) -> Dataset:
    text = decode(path, encoding)
    header = text.split("\n", 1)[0]
    # Excel writes `;` in locales where the comma is the decimal separator.
    delimiter = "," if "," in header else next((char for char in ";\t" if char in header), ",")
    return _read_delimited(path, text, delimiter, csv.QUOTE_MINIMAL)


def _read_tsv(path: Path, encoding: str) -> Dataset:
    """Read tab-separated text, with csv quoting where that is well formed, else with quotes as plain characters."""
    text = decode(path, encoding)
    try:
        return _read_delimited(path, text, "\t", csv.QUOTE_MINIMAL)
    except DataError:
        return _read_delimited(path, text, "\t", csv.QUOTE_NONE)


def _read_delimited(path: Path, text: str, delimiter: str, quoting: Any) -> Dataset:
    csv.field_size_limit(sys.maxsize)  # the default, 131,072 characters, is shorter than a long document
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    line = 1
    header: list[str] = []
    rows: list[list[str]] = []
    try:
        for row in reader:
            if not header:
                header = _header(path, row)
            elif len(row) == len(header):
                rows.append(row)
            elif row:  # a blank line is not a row
                raise DataError(
                    f"{path}, line {line}: {len(row)} fields where the header has {len(header)} "
                    f"({', '.join(header)}). A text that contains '{_shown(delimiter)}' must be in double quotes."
                )
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {line}: the row that starts here is not valid csv: {error}. A quoted text ends with a "
            'double quote, and a double quote inside it is doubled ("").'
        ) from None
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    return Dataset(
        pa.table({name: pa.array(values, pa.string()) for name, values in zip(header, columns, strict=True)})
    )


def _shown(delimiter: str) -> str:
    return "tab" if delimiter == "\t" else delimiter


def _header(path: Path, row: list[str]) -> list[str]:
    # The index that pandas writes has no name.
    names = [name.strip() or f"column_{number}" for number, name in enumerate(row, 1)]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise DataError(f"{path}, line 1: the header names the column '{duplicates[0]}' twice: rename one.")
    return names


def _read_jsonl(path: Path, encoding: str) -> Dataset:
    rows = []
    for number, line in enumerate(decode(path, encoding).split("\n"), 1):
        if line.strip():
            rows.append(_parse_object(line, f"{path}, line {number}"))
    return _from_objects(path, rows)


def _read_json(path: Path, encoding: str) -> Dataset:
    """Read a list of objects, an object with such a list under one key, or JSON lines."""
    text = decode(path, encoding)
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("{") and error.msg == "Extra data":
            return _read_jsonl(path, encoding)
        raise DataError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}.") from None
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list)]
        found = lists[0] if len(lists) == 1 else [found]
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise DataError(f'{path}: expected a list of objects, such as [{{"text": …, "label": …}}, …].')
    return _from_objects(path, found)


def _parse_object(text: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON: {error.msg} (column {error.colno}).") from None
    if not isinstance(row, dict):
        raise DataError(f'{where}: expected an object, such as {{"text": …, "label": …}}.')
    return row


def _from_objects(path: Path, rows: list[dict[str, Any]]) -> Dataset:
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        try:
            columns[name] = _column([row.get(name) for row in rows])
        except (UnicodeEncodeError, OverflowError) as error:
            raise DataError(
                f"{path}, column {name!r}: a value that cannot be stored: {error}. A lone surrogate "
                "(\\ud800 to \\udfff) is not a character, and integers have at most 64 bits."
            ) from None
    return Dataset(pa.table(columns))


def _column(values: list[Any]) -> pa.Array:
    """Return an Arrow array; one of type `MIXED` where the types differ, which is refused if the column is used."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {int, float} or len(kinds) == 1:
        try:
            return pa.array(values)
        except pa.ArrowException:
            kinds = set()  # lists or objects whose elements differ in type
    return pa.array([None if v is None else {"type": type(v).__name__, "json": json.dumps(v)} for v in values], MIXED)


def _read_conll(path: Path, encoding: str) -> Dataset:
    """Read one word per line, with its tag in the last column, and an empty line after each text; skip `# …` lines."""
    texts: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    width = 0
    for number, line in enumerate(decode(path, encoding).split("\n"), 1):
        fields = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or fields[0].startswith("-DOCSTART-"):
            texts.append([])
            tags.append([])
            continue
        if line.startswith("# ") and len(fields) != width:
            continue
        width = width or len(fields)
        if len(fields) != width or width < 2:
            raise DataError(
                f"{path}, line {number}: {len(fields)} columns where {max(width, 2)} are expected: a word, and its "
                "tag in the last column, separated by white space."
            )
        texts[-1].append(fields[0].strip())
        tags[-1].append(fields[-1].strip())
    columns = {"tokens": list(filter(None, texts)), "tags": list(filter(None, tags))}
    return Dataset(pa.table({name: pa.array(rows, pa.list_(pa.string())) for name, rows in columns.items()}))


def _read_parquet(path: Path, _encoding: str) -> Dataset:
    import pyarrow.parquet as pq

    try:
        return _decoded(pq.read_table(path))
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a readable parquet file: {str(error).splitlines()[0]}") from None


def _read_arrow(path: Path, _encoding: str) -> Dataset:
    """Read an Arrow stream, as `Dataset.save_to_disk` writes it, or an Arrow file (Feather)."""
    try:
        with pa.memory_map(str(path)) as source:
            try:
                return _decoded(pa.ipc.open_stream(source).read_all())
            except pa.ArrowInvalid:
                return _decoded(pa.ipc.open_file(source).read_all())
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Arrow file: {str(error).splitlines()[0]}") from None


def _decoded(table: pa.Table) -> Dataset:
    """Return the table with dictionary-encoded columns (pandas categories) decoded."""
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            values = table.column(index).cast(field.type.value_type)
            table = table.set_column(index, field.name, values)
    return Dataset(table)


READERS: dict[str, Callable[[Path, str], Dataset]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".feather": _read_arrow,
    ".conll": _read_conll,
    ".iob": _read_conll,
    ".bio": _read_conll,
}
