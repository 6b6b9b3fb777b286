"""Tables without a header: whether the first line is a row of data, and names for the columns."""

import re
from collections.abc import Sequence

from hpo.data.columns import LABELS, TEXTS

KNOWN = frozenset(
    {*TEXTS, *LABELS, "id", "text1", "text2", "sentence1", "sentence2", "file", "path", "image", "audio", "name"}
)


def first_line_is_data(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row looks like the others rather than like names of columns."""
    if len(rows) < 3:
        return False
    first, others = rows[0], rows[1:]
    names = [cell.strip().lower() for cell in first]
    if any(name in KNOWN for name in names) or not all(names):
        return False
    if len(set(names)) < len(names):
        return True
    columns = list(zip(*others, strict=True))
    if any(_same_shape(name, column) for name, column in zip(first, columns, strict=True)):
        return True
    repeated = [name in {cell.strip().lower() for cell in column} for name, column in zip(names, columns, strict=True)]
    numbers = [_is_number(name) and all(map(_is_number, column)) for name, column in zip(names, columns, strict=True)]
    sentence = any(name.count(" ") >= 3 and len(name) >= 20 for name in names)
    return any(numbers) or sentence or (any(repeated) and any(name.count(" ") for name in names))


def name_columns(rows: Sequence[Sequence[str]]) -> tuple[list[str], str]:
    """Return names for the columns of rows without a header, and the names with the values of the first row.

    Of two columns, the one with repeated, shorter values is `label` and the other `text`.
    """
    if not rows:
        return [], ""
    width = len(rows[0])
    names = [f"column_{number}" for number in range(1, width + 1)]
    columns = [[row[index] for row in rows] for index in range(width)]
    if width == 2:
        lengths = [sum(map(len, column)) for column in columns]
        label = 0 if lengths[0] < lengths[1] else 1
        if len(set(columns[label])) <= max(2, len(rows) // 2):
            names = ["label", "text"] if label == 0 else ["text", "label"]
    return names, ", ".join(f"{name} ({_short(cell)})" for name, cell in zip(names, rows[0], strict=True))


def headerless_note(shown: str) -> str:
    """Return the note on a table whose first line is read as data; `shown` are its columns."""
    return f"no header: the first line is a row of data. Columns: {shown}. If it is a header: `data.header: true`"


def _same_shape(name: str, column: Sequence[str]) -> bool:
    """Return whether a cell with digits differs from all below it by its digits alone, as ids and file names do."""
    shape = re.sub(r"\d+", "0", name.strip())
    return "0" in shape and all(re.sub(r"\d+", "0", cell.strip()) == shape for cell in column)


def _short(cell: str) -> str:
    return repr(cell if len(cell) <= 30 else f"{cell[:29]}…")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
