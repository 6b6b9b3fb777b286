"""Lists of labels in a column: multi-hot vectors, lists written as text and objects in lists, as lists of names."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset

from hpo.core.format import first_few, row_numbers
from hpo.data.columns import column_values, holds_strings
from hpo.errors import DataError

WRITTEN = re.compile(r"\s*\[.*\]\s*", re.DOTALL)
NAMES = ("label", "name", "class", "category", "tag", "text", "value")  # of a label that is an object


def holds_lists(rows: Dataset, column: str) -> bool:
    """Return whether a column's values are lists."""
    kind = rows.data.table.schema.field(column).type
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def holds_written_lists(rows: Dataset, column: str) -> bool:
    """Return whether a column's texts are lists such as `['a', 'b']`, as a table of lists is saved as CSV."""
    if not holds_strings(rows, column):
        return False
    texts = [value for value in column_values(rows, column) if value]
    return bool(texts) and all(isinstance(text, str) and WRITTEN.fullmatch(text) for text in texts)


def read_lists(
    splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str]
) -> tuple[dict[str, list[list[str]]], list[str]]:
    """Return the distinct labels of each row of a column of lists, in their order, and notes. Raises `DataError`."""
    values, notes = {}, []
    for split, rows in splits.items():
        where = f"{origins[split]}, column '{column}'"
        given = column_values(rows, column)
        if not holds_lists(rows, column):
            given = [_parse(value) if value else [] for value in given]
        values[split] = _check_values(given, where)
    if not holds_lists(splits["train"], column):
        notes.append("labels: lists written as text")
    inner = getattr(splits["train"].features[column], "feature", None)
    if isinstance(inner, ClassLabel):
        return {split: [_distinct(map(inner.int2str, row)) for row in rows] for split, rows in values.items()}, notes
    width = _multi_hot_width([row for rows in values.values() for row in rows])
    if width:
        notes.append(
            f"labels: a 0 or 1 for each of {width} classes, which are named by their positions, 0 to {width - 1}"
        )
        return {
            s: [[str(i) for i, flag in enumerate(row) if flag] for row in rows] for s, rows in values.items()
        }, notes
    read = {
        split: [
            _distinct(_name(label, f"{origins[split]}, column '{column}', row {number}") for label in row)
            for number, row in enumerate(rows, 1)
        ]
        for split, rows in values.items()
    }
    unused = {
        key
        for rows in values.values()
        for row in rows
        for label in row
        if isinstance(label, dict)
        for key in label
        if key != _key(label)
    }
    return read, [*notes, *([f"keys of the labels that are not used: {first_few(sorted(unused))}"] if unused else [])]


def _check_values(values: Sequence[Any], where: str) -> list[list[Any]]:
    missing = [row for row, value in enumerate(values, 1) if value is None]
    if missing:
        raise DataError(f"{where}: no list of labels in {row_numbers(missing)}. A row may have an empty one.")
    empty = [row for row, value in enumerate(values, 1) if any(label is None or label == "" for label in value)]
    if empty:
        raise DataError(f"{where}: an empty label in the lists of {row_numbers(empty)}. Remove it.")
    return [list(value) for value in values]


def _parse(text: str) -> list[Any]:
    """Return a list written as Python's, JSON's or NumPy's; one without quotes is separated by commas."""
    spaced = re.sub(r"(['\"])\s+(?=['\"])", r"\1, ", text.strip())  # NumPy's ['a' 'b'] would be read as 'ab'
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(spaced)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, list):
            return value
    inside = spaced[1:-1].strip()
    parts = inside.split(",") if "," in inside else re.split(r"\s+", inside)
    numbers = all(re.fullmatch(r"\d+\.?\d*", part.strip()) for part in parts)
    bare = [part.strip().strip("'\"") for part in (parts if numbers else inside.split(","))]
    return [float(part) if numbers else part for part in bare if part]


def _multi_hot_width(rows: Sequence[Sequence[Any]]) -> int:
    """Return the number of classes where every row is a 0 or 1 for each class, at least two; else 0."""
    widths = {len(row) for row in rows}
    if len(widths) != 1 or (width := widths.pop()) < 2:
        return 0
    values = {type(value) for row in rows for value in row}
    flags = values <= {bool, int, float} and all(value in (0, 1) for row in rows for value in row)
    return width if flags else 0


def _name(label: Any, where: str) -> str:
    if isinstance(label, dict):
        key = _key(label)
        if key is None:
            raise DataError(f"{where}: the label {label!r:.100} needs one of the keys {', '.join(NAMES)}, a text.")
        return str(label[key]).strip()
    if isinstance(label, float):
        if not label.is_integer():
            raise DataError(
                f"{where}: the label {label} is a fraction. A list holds names or ids, or a 0 or 1 for each class; "
                "probabilities of classes need a threshold first."
            )
        return str(int(label))
    if isinstance(label, list):
        raise DataError(f"{where}: a list within the list of labels: {label!r:.100}.")
    return str(label).strip()


def _key(label: Mapping[str, Any]) -> str | None:
    return next((key for key in NAMES if isinstance(label.get(key), str | int)), None)


def _distinct(labels: Any) -> list[str]:
    return list(dict.fromkeys(labels))
