"""Which splits a task may use: those that hold its columns. A test split without labels is left out."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from hpo.data.columns import column_values, missing_column
from hpo.data.sources import RawSplits
from hpo.errors import did_you_mean


def labeled_splits(
    raw: RawSplits, inputs: Sequence[str], label: str | None, key: str = "text", what: str = "labels"
) -> tuple[dict[str, Dataset], list[str]]:
    """The splits by name, and notes. Each has the columns `inputs`, which `data.{key}` names, and `label`, if any.

    A test split without its label, or with an empty one in every row, as in a competition, is left out. Raises
    `DataError` where a column is missing otherwise, or stands there misspelled.
    """
    splits, notes = {}, []
    for split, rows in raw.present().items():
        origin, known = raw.origins[split], rows.column_names
        for name in inputs:
            if name not in known:
                raise missing_column(f"data.{key}", name, known, origin)
        if label is None:
            splits[split] = rows
            continue
        mistyped = did_you_mean(label, [name for name in known if name not in inputs])
        if label not in known and (split != "test" or mistyped):
            raise missing_column("data.label", label, known, origin)
        if split == "test" and (label not in known or all(map(_is_blank, column_values(rows, label)))):
            notes.append(f"{origin} holds no {what} and is not used")
        else:
            splits[split] = rows
    return splits, notes


def _is_blank(label: Any) -> bool:
    """Whether a row's label is none: empty, -1, or nothing but such."""
    if isinstance(label, dict):
        return all(map(_is_blank, label.values()))
    if isinstance(label, list):
        return all(map(_is_blank, label))
    return label in (None, "", "-1", -1) or label != label
