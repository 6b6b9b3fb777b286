"""A label column as numbers to predict, and the quantile bins that stratify them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from hpo.core.format import count, row_numbers
from hpo.data.columns import column_values
from hpo.data.formats.objects.rows import MIXED
from hpo.data.splits.kfold import fold_indices
from hpo.errors import DataError

BINS = 10


def read_numbers(splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str]) -> dict[str, list[float]]:
    """Return the label column of each split as finite numbers. Raises `DataError` naming file and rows."""
    return {split: _read_column(rows, column, f"{origins[split]}, column '{column}'") for split, rows in splits.items()}


def has_fractions(rows: Dataset, column: str) -> bool:
    """Return whether a column contains numbers, some of them fractions: they measure something and are not ids."""
    kind = rows.data.table.schema.field(column).type
    if not (pa.types.is_floating(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return False
    try:
        found = {float(value) for value in column_values(rows, column) if value not in (None, "")}
    except ValueError:
        return False
    return any(math.isfinite(value) and not value.is_integer() for value in found)


def check_numbers(splits: Mapping[str, Dataset], origins: Mapping[str, str]) -> list[str]:
    """Check that the numbers vary in every split and fold. Raises `DataError`."""
    if len(splits["train"]) < 2:
        raise DataError(f"{origins['train']}: 1 row is too few to train on.")
    for split, rows in splits.items():
        values = column_values(rows, "label")
        if len(set(values)) < 2:
            where = origins.get(split, f"{split}, taken from {origins['train']}")
            raise DataError(f"{where}: every label is {values[0]:g}: labels need at least two different values.")
    for fold, (split, indices) in enumerate(fold_indices(splits), 1):
        values = column_values(splits[split], "label")
        if len({values[index] for index in indices}) < 2:
            raise DataError(
                f"data.folds: every label of fold {fold} ({count(len(indices), 'row')}) is {values[indices[0]]:g}, so "
                "that no metric is meaningful. Use fewer folds, or add rows."
            )
    return []


def quantile_bins(values: Sequence[float]) -> list[int]:
    """Return the decile of each value, from 0 to 9."""
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
    return [int(number) for number in np.searchsorted(edges, values, side="right")]


def _read_column(rows: Dataset, column: str, where: str) -> list[float]:
    kind = rows.data.table.schema.field(column).type
    if kind == MIXED or pa.types.is_nested(kind):
        shown = "values of several types" if kind == MIXED else kind
        raise DataError(f"{where}: contains {shown}, not a number a row.")
    return _require_numbers([_convert(value) for value in column_values(rows, column)], where)


def _convert(value: Any) -> float | str | None:
    """Return a value as a number; None for a missing one, and the spelling of anything else."""
    if value is None or (isinstance(value, str) and not value.strip()) or value != value:
        return None
    try:
        number = float(value)
    except ValueError:
        return str(value)
    if math.isnan(number):
        return None
    return number if math.isfinite(number) else str(value)


def _require_numbers(values: Sequence[float | str | None], where: str) -> list[float]:
    missing = [row for row, value in enumerate(values, 1) if value is None]
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {count(len(values), 'row')} without a number ({row_numbers(missing)}). Add "
            "the numbers, or remove these rows."
        )
    invalid = next((row for row, value in enumerate(values, 1) if isinstance(value, str)), None)
    if invalid is not None:
        raise DataError(
            f"{where}, row {invalid}: '{values[invalid - 1]}' is not a finite number, which this task needs. For "
            "labels that are words: `task: text-classification`."
        )
    return [float(value) for value in values if value is not None]
