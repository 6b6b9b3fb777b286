"""One reader for each kind of file; each mistake names the file, the line and what to do.

Text formats are read without guessing types: `no`, `off` and `01` in a csv stay the words they are.
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

# A JSON column of several types: what each value was, and its spelling, so that `1` and `"1"` stay apart.
MIXED = pa.struct({"type": pa.string(), "json": pa.string()})


def read_file(path: Path, encoding: str = "utf-8") -> Dataset:
    """Read one csv, tsv, json, jsonl, parquet, Arrow or CoNLL file with its own columns; all strings in csv and tsv.

    Raises `DataError`.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: files of kind '{path.suffix}' are not read. Allowed: {', '.join(READERS)}.")
    try:
        rows = reader(path, encoding)
    except OSError as error:
        raise DataError(f"{path.absolute()}: cannot be read: {error.strerror or error}.") from error
    if len(rows) == 0:
        raise DataError(f"{path}: there is a header and no row below it: give it the rows of your data.")
    return rows


def decode(path: Path, encoding: str) -> str:
    """The text of a file, its byte order mark dropped.

    Raises `DataError` with the place of the first byte that is wrong, and an encoding that would read it.
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
            f"{path}, line {line}: a NUL character: this is not {encoding} text. `data.encoding: utf-16` may read it; "
            "otherwise take the character out."
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
    # Excel writes `;` where the comma is the decimal sign.
    delimiter = "," if "," in header else next((sign for sign in ";\t" if sign in header), ",")
    return _read_delimited(path, text, delimiter, csv.QUOTE_MINIMAL)


def _read_tsv(path: Path, encoding: str) -> Dataset:
    """Tab-separated text, with csv quoting where it is well formed, else with quote marks as plain characters."""
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
                    f"({', '.join(header)}). A text that holds '{_shown(delimiter)}' must stand in double quotes."
                )
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {line}: the row that begins here is not valid csv: {error}. A quoted text ends with a "
            'double quote, and a double quote inside it is written twice ("").'
        ) from None
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    return Dataset(
        pa.table({name: pa.array(values, pa.string()) for name, values in zip(header, columns, strict=True)})
    )


def _shown(delimiter: str) -> str:
    return "tab" if delimiter == "\t" else delimiter


def _header(path: Path, row: list[str]) -> list[str]:
    # An index written by pandas has an empty name.
    names = [name.strip() or f"column_{place}" for place, name in enumerate(row, 1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}, line 1: the column '{twice[0]}' stands twice in the header: rename one.")
    return names


def _read_jsonl(path: Path, encoding: str) -> Dataset:
    rows = []
    for number, line in enumerate(decode(path, encoding).split("\n"), 1):
        if line.strip():
            rows.append(_parse_object(line, f"{path}, line {number}"))
    return _from_objects(path, rows)


def _read_json(path: Path, encoding: str) -> Dataset:
    """A list of objects, an object with such a list under one key, or JSON lines."""
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
                f"{path}, column {name!r}: a value that cannot be kept: {error}. Half of a character pair (\\ud800 to "
                "\\udfff) stands for nothing, and whole numbers have at most 64 bits."
            ) from None
    return Dataset(pa.table(columns))


def _column(values: list[Any]) -> pa.Array:
    """One Arrow column, or where the types do not go together a `MIXED` one, which the checks refuse if it is used."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {int, float} or len(kinds) == 1:
        try:
            return pa.array(values)
        except pa.ArrowException:
            kinds = set()  # lists or objects whose insides differ
    return pa.array([None if v is None else {"type": type(v).__name__, "json": json.dumps(v)} for v in values], MIXED)


def _read_conll(path: Path, encoding: str) -> Dataset:
    """One word a line, its tag in the last column, an empty line after each text; comments (`# …`) are skipped."""
    texts: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    width = 0
    for number, line in enumerate(decode(path, encoding).split("\n"), 1):
        fields = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or fields[0].startswith("-DOCSTART-"):
            if texts[-1]:
                texts.append([])
                tags.append([])
            continue
        if line.startswith("# ") and len(fields) != width:
            continue
        width = width or len(fields)
        if len(fields) != width or width < 2:
            raise DataError(
                f"{path}, line {number}: {len(fields)} columns, where {max(width, 2)} are due: a word, then its tag "
                "(the last column), with white space between them."
            )
        texts[-1].append(fields[0].strip())
        tags[-1].append(fields[-1].strip())
    kept = [place for place, words in enumerate(texts) if words]
    columns = {"tokens": [texts[place] for place in kept], "tags": [tags[place] for place in kept]}
    return Dataset(pa.table({name: pa.array(rows, pa.list_(pa.string())) for name, rows in columns.items()}))


def _read_parquet(path: Path, _encoding: str) -> Dataset:
    import pyarrow.parquet as pq

    try:
        return _plain(pq.read_table(path))
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a readable parquet file: {str(error).splitlines()[0]}") from None


def _read_arrow(path: Path, _encoding: str) -> Dataset:
    """A stream, as `Dataset.save_to_disk` writes it, or a file (Feather)."""
    try:
        with pa.memory_map(str(path)) as source:
            try:
                return _plain(pa.ipc.open_stream(source).read_all())
            except pa.ArrowInvalid:
                return _plain(pa.ipc.open_file(source).read_all())
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Arrow file: {str(error).splitlines()[0]}") from None


def _plain(table: pa.Table) -> Dataset:
    """The table with each pandas category as its values."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            plain = table.column(place).cast(field.type.value_type)
            table = table.set_column(place, field.name, plain)
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
