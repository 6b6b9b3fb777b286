"""The splits that contain a task's columns; a test split without labels is skipped."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from hpo.core.format import count
from hpo.data.columns import column_values, missing_column
from hpo.data.splits.create import take
from hpo.data.splits.raw import RawSplits
from hpo.errors import DataError, did_you_mean


def labeled_splits(
    raw: RawSplits, inputs: Sequence[str], label: str | None, key: str = "text", what: str = "labels"
) -> tuple[dict[str, Dataset], list[str]]:
    """Return the splits by name, and notes; each has the columns `inputs`, set by `data.{key}`, and `label`, if any.

    A test split that lacks the label, or whose labels are all empty, as in a competition, is skipped. Raises
    `DataError` where any other column is missing, or where the test split has a column that resembles the label's.
    """
    splits, notes = {}, []
    for split, rows in raw.present().items():
        origin = raw.origins[split]
        _require_columns(rows, origin, split, inputs, label, key)
        if label is not None and split == "test" and _is_unlabeled(rows, label):
            notes.append(f"{origin} has no {what} and is not used")
        else:
            splits[split] = rows
    return splits, notes


def drop_unlabeled(rows: Dataset, label: str, blank: Sequence[Any], origin: str) -> tuple[Dataset, list[str]]:
    """Return the rows whose label is none of `blank`, nor NaN, and a note on the others. Raises `DataError`."""
    values = [value.strip() if isinstance(value, str) else value for value in column_values(rows, label)]
    kept = [index for index, value in enumerate(values) if value not in blank and value == value]
    if len(kept) == len(rows):
        return rows, []
    if not kept:
        raise DataError(f"{origin}, column '{label}': no row has a label.")
    return take(rows, kept), [f"{len(rows) - len(kept)} of {count(len(rows), 'row')} of {origin} dropped: no label"]


def _require_columns(
    rows: Dataset, origin: str, split: str, inputs: Sequence[str], label: str | None, key: str
) -> None:
    known = rows.column_names
    for name in inputs:
        if name not in known:
            raise missing_column(f"data.{key}", name, known, origin)
    if label is None or label in known:
        return
    mistyped = did_you_mean(label, [name for name in known if name not in inputs])
    if split != "test" or mistyped:
        raise missing_column("data.label", label, known, origin)


def _is_unlabeled(rows: Dataset, label: str) -> bool:
    return label not in rows.column_names or all(map(_is_blank, column_values(rows, label)))


def _is_blank(label: Any) -> bool:
    """Return whether a label is empty, NaN or -1, or a container of nothing but such values."""
    if isinstance(label, dict):
        return all(map(_is_blank, label.values()))
    if isinstance(label, list):
        return all(map(_is_blank, label))
    return label in (None, "", "-1", -1) or label != label
