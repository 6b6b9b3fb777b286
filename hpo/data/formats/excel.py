"""Excel workbooks: the only sheet, or the sheets named after splits."""

from typing import Any

import pyarrow as pa
from datasets import Dataset

from hpo.data.formats.headers import first_line_is_data, headerless_note, name_columns
from hpo.data.formats.sentences import group_sentences
from hpo.data.formats.source import Content, Format, SourceFile
from hpo.data.formats.split_names import split_of
from hpo.data.optional import require_module
from hpo.errors import DataError


def _read(source: SourceFile) -> Content:
    openpyxl = require_module("openpyxl", "excel", "Reading Excel files")
    if source.suffix == ".xls":
        raise DataError(f"{source.path}: the old format of Excel: save it as .xlsx, or as csv in utf-8.")
    try:
        book = openpyxl.load_workbook(source.path, read_only=True, data_only=True)
    except Exception as error:  # openpyxl raises what its zip and XML readers raise
        raise DataError(f"{source.path}: not a readable Excel file: {error}") from None
    sheets = {sheet.title: rows for sheet in book.worksheets if (rows := _read_sheet(source, sheet)) is not None}
    book.close()
    if not sheets:
        raise DataError(f"{source.path}: no sheet has rows.")
    if len(sheets) > 1 and "train" in {split_of(name) for name in sheets}:
        named = {name: rows for name, rows in sheets.items() if split_of(name)}
        return Content(named, (*source.notes, *_left_out(list(sheets), list(named), source)))
    first = next(iter(sheets))
    found = Content({"": sheets[first]}, (*source.notes, *_left_out(list(sheets), [first], source)))
    return group_sentences(found)


def _left_out(sheets: list[str], used: list[str], source: SourceFile) -> list[str]:
    unused = [name for name in sheets if name not in used]
    return [f"sheets of {source.path.name} that are not used: {', '.join(unused)}"] if unused else []


def _read_sheet(source: SourceFile, sheet: Any) -> Dataset | None:
    rows = [[_as_string(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
    rows = [row for row in rows if any(row)]
    if len(rows) < 2:
        return None
    width = max(index + 1 for row in rows for index, cell in enumerate(row) if cell)
    rows = [(row + [""] * width)[:width] for row in rows]
    has_header = source.header if source.header is not None else not first_line_is_data(rows[:200])
    if has_header:
        names, rows = [cell.strip() or f"column_{number}" for number, cell in enumerate(rows[0], 1)], rows[1:]
    else:
        names, shown = name_columns(rows[:200])
        source.notes.append(headerless_note(shown))
    if len(set(names)) < len(names):
        raise DataError(f"{source.path}, sheet {sheet.title}: the header names a column twice: rename one.")
    columns = zip(*rows, strict=True)
    return Dataset(pa.table({name: pa.array(list(column)) for name, column in zip(names, columns, strict=True)}))


def _as_string(cell: Any) -> str:
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


EXCEL = Format(
    "Excel (xlsx)",
    frozenset({".xlsx", ".xlsm", ".xls"}),
    lambda source: (
        source.suffix in (".xlsx", ".xlsm", ".xls")
        or (source.head.startswith(b"PK") and b"xl/" in source.head)
        or (source.head.startswith(b"PK") and b"[Content_Types].xml" in source.head[:200])
    ),
    _read,
)
