"""Several labels per row: a list, a text with a delimiter, or one 0/1 column per class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset

from hpo.core.format import count, first_few
from hpo.data.columns import column_values, holds_strings, missing_column
from hpo.data.formats.objects.rows import MIXED
from hpo.data.labels.label_lists import holds_lists, holds_written_lists, read_lists
from hpo.data.splits.kfold import check_fold_classes
from hpo.errors import DataError

DELIMITERS = ("|", ";", ",")
TRUE, FALSE = ("1", "true", "yes"), ("0", "false", "no", "")


def find_delimiter(values: Sequence[Any]) -> str | None:
    """Return the delimiter between labels: the first that occurs and gives at most as many labels as distinct texts."""
    texts = [str(value) for value in values if value]
    for delimiter in DELIMITERS:
        parts = {part.strip() for text in texts for part in text.split(delimiter)}
        if any(delimiter in text for text in texts) and len(parts) <= len(set(texts)) and "" not in parts:
            return delimiter
    return None


def holds_delimited(rows: Dataset, column: str) -> bool:
    """Return whether texts clearly are several labels: parts of some texts are also labels of their own."""
    if not holds_strings(rows, column):
        return False
    texts = [str(value) for value in column_values(rows, column) if value]
    delimiter = find_delimiter(texts)
    if delimiter is None:
        return False
    parts = {part.strip() for text in texts if delimiter in text for part in text.split(delimiter)}
    alone = {text.strip() for text in texts if delimiter not in text}
    return len(parts) >= 2 and len(parts & alone) * 2 >= len(parts) and len(alone - parts) <= len(parts)


def read_label_sets(
    splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str], delimiter: str | None
) -> tuple[dict[str, list[list[int]]], tuple[str, ...], list[str]]:
    """Return each row's labels as a 0/1 vector over the classes, the names of the classes, and notes.

    A row may have no labels. The classes are sorted, or have the order of their `ClassLabel` feature. Raises
    `DataError` where rows have one label each, or no list.
    """
    notes: list[str] = []
    train = splits["train"]
    _check_lists(splits, column, origins)
    if holds_lists(train, column) or (delimiter is None and holds_written_lists(train, column)):
        sets, notes = read_lists(splits, column, origins)
    else:
        if delimiter is None:
            delimiter = _detect_delimiter(train, column, origins["train"])
            notes.append(f"labels: several in a text, separated by '{delimiter}'")
        sets = {
            split: [_split_text(str(value or ""), delimiter) for value in column_values(rows, column)]
            for split, rows in splits.items()
        }
    names = _order_classes(sets, train.features[column])
    vectors = {split: _convert_to_vectors(rows, names) for split, rows in sets.items()}
    unlabeled = {split: sum(not row for row in rows) for split, rows in sets.items()}
    if any(unlabeled.values()):
        each = ", ".join(f"{number} in {split}" for split, number in unlabeled.items())
        notes.append(f"rows without any label: {each}")
    return vectors, tuple(names), notes


def join_columns(rows: Dataset, columns: Sequence[str], origin: str) -> Dataset:
    """Return the rows with one column `labels`: the names of those of the 0/1 `columns` that are 1.

    Raises `DataError` for a missing column, and for a value that is neither 0 nor 1.
    """
    for name in columns:
        if name not in rows.column_names:
            raise missing_column("data.label", name, rows.column_names, origin)
    flags = {
        name: [_parse_flag(value, name, row, origin) for row, value in enumerate(column_values(rows, name), 1)]
        for name in columns
    }
    labels = [[name for name in columns if flags[name][row]] for row in range(len(rows))]
    others = [name for name in rows.column_names if name not in (*columns, "labels")]
    table = rows.data.table.select(others).append_column("labels", pa.array(labels, pa.list_(pa.string())))
    return Dataset(table)


def check_label_sets(splits: Mapping[str, Dataset], names: Sequence[str], origins: Mapping[str, str]) -> list[str]:
    """Check that the classes can be learned and evaluated; return notes on doubtful ones. Raises `DataError`."""
    if len(splits["train"]) < 2 or len(names) < 2:
        raise DataError(
            f"{origins['train']}: {count(len(splits['train']), 'row')} with {count(len(names), 'class', 'classes')} "
            "in all: at least two of each are needed."
        )
    counts = {split: np.array(column_values(rows, "label")).sum(0) for split, rows in splits.items()}
    notes = check_fold_classes(
        splits, names, lambda rows: [np.flatnonzero(row).tolist() for row in column_values(rows, "label")]
    )
    for split, found in counts.items():
        where = origins.get(split, split)
        if not found.any():
            raise DataError(f"{where}: no row has a label, so that no metric is meaningful.")
        unknown = [names[int(index)] for index in np.flatnonzero((found > 0) & (counts["train"] == 0))]
        if unknown:
            raise DataError(
                f"{where}: {count(len(unknown), 'class', 'classes')} that no training row has, so that it cannot be "
                f"learned: {first_few(unknown)}. Add training rows, or remove these."
            )
        absent = [names[int(index)] for index in np.flatnonzero((found == 0) & (counts["train"] > 0))]
        if absent:
            notes.append(f"{count(len(absent), 'class', 'classes')} absent from {split}: {first_few(absent)}")
    return notes


def rarest_label(rows: Dataset) -> list[int]:
    """Return for each row the index of the rarest of its classes, from 1; 0 where it has none."""
    matrix = np.array(column_values(rows, "label"))
    rank = np.where(matrix == 1, matrix.sum(0)[None, :], len(matrix) + 1)
    return [int(index) for index in np.where(matrix.any(1), rank.argmin(1) + 1, 0)]


def _detect_delimiter(rows: Dataset, column: str, origin: str) -> str:
    delimiter = find_delimiter(column_values(rows, column))
    if delimiter is None:
        raise DataError(
            f"{origin}, column '{column}': one label a row. Several labels are a list, a text such as 'a|b' "
            "(`data.label_delimiter` sets the delimiter), or a 0/1 column for each class (`data.label: [a, b]`). For "
            "one label a row, use `task: text-classification`."
        )
    return delimiter


def _check_lists(splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str]) -> None:
    for split, rows in splits.items():
        if rows.data.table.schema.field(column).type == MIXED:
            raise DataError(
                f"{origins[split]}, column '{column}': some rows contain a list and others do not, or the lists hold "
                "values of several types: give each row a list of names."
            )


def _split_text(text: str, delimiter: str | None) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(delimiter) if part.strip()))


def _order_classes(sets: Mapping[str, Sequence[Sequence[str]]], feature: Any) -> list[str]:
    """Return the classes: in the order of a `ClassLabel` feature, else numbers in numeric order before other names."""
    found = {label for rows in sets.values() for row in rows for label in row}
    inner = getattr(feature, "feature", None)
    if isinstance(inner, ClassLabel):
        return [name for name in inner.names if name in found]
    return sorted(found, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def _convert_to_vectors(sets: Sequence[Sequence[str]], names: Sequence[str]) -> list[list[int]]:
    index = {name: number for number, name in enumerate(names)}
    matrix = np.zeros((len(sets), len(names)), dtype=int)
    for row, labels in enumerate(sets):
        matrix[row, [index[label] for label in labels]] = 1
    return matrix.tolist()


def _parse_flag(value: Any, column: str, row: int, origin: str) -> bool:
    spelled = str(int(value) if isinstance(value, bool | float) and value in (0, 1) else value or "").strip().lower()
    if spelled not in TRUE + FALSE:
        raise DataError(f"{origin}, column '{column}', row {row}: '{value}' is neither 0 nor 1.")
    return spelled in TRUE
