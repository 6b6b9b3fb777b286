"""Reading several labels a row: a list, one text with a delimiter in it, or a 0/1 column a class."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset

from hpo.core.format import count, first_few, row_numbers
from hpo.data.columns import column_values, missing_column
from hpo.data.readers import MIXED
from hpo.data.splits.kfold import check_fold_classes
from hpo.errors import DataError

DELIMITERS = ("|", ";", ",")
TRUE, FALSE = ("1", "true", "yes"), ("0", "false", "no", "")


def holds_lists(rows: Dataset, column: str) -> bool:
    """Whether a column's values are lists."""
    kind = rows.data.table.schema.field(column).type
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def find_delimiter(values: Sequence[Any]) -> str | None:
    """The sign that stands between labels: one that some texts hold, where its parts are of few kinds."""
    texts = [str(value) for value in values if value]
    for sign in DELIMITERS:
        parts = Counter(part.strip() for text in texts for part in text.split(sign))
        if any(sign in text for text in texts) and len(parts) <= len(set(texts)) and "" not in parts:
            return sign
    return None


def read_label_sets(
    splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str], delimiter: str | None
) -> tuple[dict[str, list[list[int]]], tuple[str, ...], list[str]]:
    """Each row's labels as a 0 or 1 for each class, the names of the classes, and notes. An empty set is fine.

    Classes stand in sorted order, those of a `ClassLabel` in theirs. Raises `DataError`.
    """
    notes = []
    if not holds_lists(splits["train"], column) and delimiter is None:
        delimiter = find_delimiter(column_values(splits["train"], column))
        if delimiter is None:
            raise DataError(
                f"{origins['train']}, column '{column}': one label a row. Several stand in a list, in one text such as "
                "'a|b' (`data.label_delimiter` names the sign), or in a 0/1 column for each class (`data.label: [a, "
                "b]`). With one label a row, it is `task: text-classification`."
            )
        notes.append(f"labels: several in a text, with '{delimiter}' between them")
    sets = {
        split: _read(rows, column, f"{origins[split]}, column '{column}'", delimiter) for split, rows in splits.items()
    }
    inner = getattr(splits["train"].features[column], "feature", None)
    found = {label for rows in sets.values() for row in rows for label in row}
    if isinstance(inner, ClassLabel):
        names = [name for name in inner.names if name in found]
    else:
        names = sorted(found, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    number = {name: place for place, name in enumerate(names)}
    vectors = {}
    for split, rows in sets.items():
        matrix = np.zeros((len(rows), len(names)), dtype=int)
        for place, row in enumerate(rows):
            matrix[place, [number[label] for label in row]] = 1
        vectors[split] = matrix.tolist()
    bare = {split: sum(not row for row in rows) for split, rows in sets.items()}
    if any(bare.values()):
        notes.append(f"rows without any label: {', '.join(f'{many} in {split}' for split, many in bare.items())}")
    return vectors, tuple(names), notes


def join_columns(rows: Dataset, columns: Sequence[str], origin: str) -> Dataset:
    """The rows with one column `labels`: the names of those of `columns` that hold a 1. Raises `DataError`."""
    for name in columns:
        if name not in rows.column_names:
            raise missing_column("data.label", name, rows.column_names, origin)
    held = {
        name: [_truth(value, name, row, origin) for row, value in enumerate(column_values(rows, name), 1)]
        for name in columns
    }
    labels = [[name for name in columns if held[name][row]] for row in range(len(rows))]
    others = [name for name in rows.column_names if name not in (*columns, "labels")]
    table = rows.data.table.select(others).append_column("labels", pa.array(labels, pa.list_(pa.string())))
    return Dataset(table)


def check_label_sets(splits: Mapping[str, Dataset], names: Sequence[str], origins: Mapping[str, str]) -> list[str]:
    """Refuse what nothing can be learnt from or judged by; returns notes on what is only doubtful."""
    if len(splits["train"]) < 2 or len(names) < 2:
        raise DataError(
            f"{origins['train']}: {count(len(splits['train']), 'row')} with {count(len(names), 'class', 'classes')}"
            " in all: at least two of each are needed."
        )
    counts = {split: np.array(column_values(rows, "label")).sum(0) for split, rows in splits.items()}
    notes = check_fold_classes(
        splits, names, lambda rows: [np.flatnonzero(row).tolist() for row in column_values(rows, "label")]
    )
    for split, found in counts.items():
        if not found.any():
            raise DataError(f"{origins.get(split, split)}: no row has a label: nothing can be judged by it.")
        unknown = [names[int(place)] for place in np.flatnonzero((found > 0) & (counts["train"] == 0))]
        if unknown:
            raise DataError(
                f"{origins.get(split, split)}: {count(len(unknown), 'class', 'classes')} that no training row has "
                f"and nothing can learn: {first_few(unknown)}. Add training rows, or take these out."
            )
        absent = [names[int(place)] for place in np.flatnonzero((found == 0) & (counts["train"] > 0))]
        if absent:
            notes.append(f"{count(len(absent), 'class', 'classes')} absent from {split}: {first_few(absent)}")
    return notes


def rarest_label(rows: Dataset) -> list[int]:
    """For each row the number of the rarest of its classes, from 1; 0 where it has none."""
    matrix = np.array(column_values(rows, "label"))
    rank = np.where(matrix == 1, matrix.sum(0)[None, :], len(matrix) + 1)
    return [int(place) for place in np.where(matrix.any(1), rank.argmin(1) + 1, 0)]


def _read(rows: Dataset, column: str, where: str, delimiter: str | None) -> list[list[str]]:
    kind = rows.data.table.schema.field(column).type
    if kind == MIXED:
        raise DataError(f"{where}: some rows hold a list and others do not: give each row a list.")
    values = column_values(rows, column)
    if holds_lists(rows, column):
        missing = [row for row, value in enumerate(values, 1) if value is None]
        if missing:
            raise DataError(
                f"{where}: no list of labels in {row_numbers(missing)}. A row without any has an empty one."
            )
        inner = getattr(rows.features[column], "feature", None)
        name = inner.int2str if isinstance(inner, ClassLabel) else str
        return [list(dict.fromkeys(name(label) for label in value)) for value in values]
    return [
        list(dict.fromkeys(part.strip() for part in str(value or "").split(delimiter) if part.strip()))
        for value in values
    ]


def _truth(value: Any, column: str, row: int, origin: str) -> bool:
    spelled = str(int(value) if isinstance(value, bool | float) and value in (0, 1) else value or "").strip().lower()
    if spelled not in TRUE + FALSE:
        raise DataError(f"{origin}, column '{column}', row {row}: '{value}' is neither 0 nor 1.")
    return spelled in TRUE
