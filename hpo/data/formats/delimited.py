"""Tables as text: csv, tsv, and columns separated by `;` or `|`, with or without a header; every value is a string.

Nothing is inferred of a value's type: `no`, `off` and `01` stay strings.
"""

import csv
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from hpo.data.columns import as_rows
from hpo.data.formats.headers import first_line_is_data, headerless_note, name_columns
from hpo.data.formats.sentences import group_sentences
from hpo.data.formats.source import Content, Format, SourceFile, decode
from hpo.errors import DataError

BATCH = 20_000
DELIMITERS = {".csv": ",;\t|", ".tsv": "\t|;,"}


def _recognizes(source: SourceFile) -> bool:
    """Return whether the first lines have the same number of fields, more than one; any csv and tsv file is a table."""
    return source.suffix in DELIMITERS or _regular_delimiter(source, "\t|;,") is not None


def _regular_delimiter(source: SourceFile, candidates: str) -> str | None:
    """Return the delimiter that gives the first 100 rows the same number of fields, several."""
    lines = [line for line in source.lines if line.strip()][:100]
    for delimiter in candidates:
        if not lines or delimiter not in lines[0]:
            continue
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
            try:
                rows = list(csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True))
            except csv.Error:
                continue
            if len({len(row) for row in rows}) == 1 and len(rows[0]) > 1 and len(rows) > 1:
                return delimiter
    return None


def _read(source: SourceFile) -> Content:
    delimiter = _find_delimiter(source)
    plain = delimiter in "\t|"  # such files are often written without quoting
    try:
        table = _read_table(source, delimiter, csv.QUOTE_MINIMAL)
        if plain and _has_line_breaks(table):
            table = _unquoted(source, delimiter) or table
    except DataError:
        if not plain:
            raise
        table = _read_table(source, delimiter, csv.QUOTE_NONE)
    return group_sentences(Content({"": table}, tuple(source.notes)))


def _unquoted(source: SourceFile, delimiter: str) -> Dataset | None:
    """Return the rows read without quoting: a quote at the start of a field would otherwise join rows silently."""
    try:
        return _read_table(source, delimiter, csv.QUOTE_NONE)
    except DataError:
        return None


def _has_line_breaks(rows: Dataset) -> bool:
    table = rows.data.table
    return any(pc.any(pc.match_substring(column, "\n")).as_py() for column in table.columns)


def _find_delimiter(source: SourceFile) -> str:
    """Return the delimiter of a regular file, else the first of those usual for the suffix in the first line."""
    usual = DELIMITERS.get(source.suffix, "\t|;,")
    if not source.lines:
        decode(source.path, source.encoding)  # raises: not text of this encoding
    header = source.lines[0] if source.lines else ""
    if source.suffix == ".tsv" and "\t" in header:
        return "\t"
    # Excel writes `;` where the comma is the decimal separator; a first line with commas may still be one field of `|`.
    regular = _regular_delimiter(source, "\t|,;")
    return regular or next((delimiter for delimiter in usual if delimiter in header), usual[0])


def _read_table(source: SourceFile, delimiter: str, quoting: Any) -> Dataset:
    csv.field_size_limit(sys.maxsize)  # the default, 131,072 characters, is shorter than a long document
    with source.open() as file:
        rows = _rows(source, csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True), delimiter)
        first = list(islice(rows, 200))
        has_header = source.header if source.header is not None else not first_line_is_data(first)
        source.notes.clear()
        if has_header:
            names = _header(source, first[0] if first else [])
            first = first[1:]
        else:
            names, shown = name_columns(first)
            source.notes.append(headerless_note(shown))
        chunks: list[list[pa.Array]] = [[] for _ in names]
        while first:
            for parts, values in zip(chunks, zip(*first, strict=True), strict=True):
                parts.append(pa.array(values, pa.string()))
            first = list(islice(rows, BATCH))
    table = pa.table({name: pa.chunked_array(parts, pa.string()) for name, parts in zip(names, chunks, strict=True)})
    if any(pc.any(pc.match_substring(column, "\0")).as_py() for column in table.columns):
        decode(source.path, source.encoding)  # raises, with the line of the NUL character
    return as_rows(_without_blank_columns(table))


def _rows(source: SourceFile, reader: Any, delimiter: str) -> Iterator[list[str]]:
    """Yield the rows, without blank lines. Raises `DataError` with the line of a row of another width."""
    line, header = 1, None
    try:
        for row in reader:
            header = header or row
            if len(row) == len(header):
                if row:
                    yield row
            elif row:  # a blank line is not a row
                raise DataError(
                    f"{source.path}, line {line}: {len(row)} fields where the header has {len(header)} "
                    f"({', '.join(header)}). A text that contains '{_shown(delimiter)}' must be in double quotes."
                )
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{source.path}, line {line}: the row that starts here is not valid csv: {error}. A quoted text ends with "
            'a double quote, and a double quote inside it is doubled ("").'
        ) from None


def _shown(delimiter: str) -> str:
    return "tab" if delimiter == "\t" else delimiter


def _header(source: SourceFile, row: list[str]) -> list[str]:
    # The index that pandas writes has no name.
    names = [name.strip() or f"column_{number}" for number, name in enumerate(row, 1)]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise DataError(f"{source.path}, line 1: the header names the column '{duplicates[0]}' twice: rename one.")
    return names


def _without_blank_columns(table: pa.Table) -> pa.Table:
    """Return the table without the empty columns that a header ending in `,,,` makes."""
    blank = [
        name
        for name in table.column_names
        if name.startswith("column_") and len(table) and pc.all(pc.equal(table[name], "")).as_py()
    ]
    return table.drop_columns(blank) if len(blank) < table.num_columns else table


TABLE = Format("csv or tsv", frozenset(DELIMITERS), _recognizes, _read)
