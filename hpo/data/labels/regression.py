"""Reading a label column as numbers to predict, and dealing them out evenly."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from hpo.core.format import count, row_numbers
from hpo.data.columns import column_values
from hpo.data.readers import MIXED
from hpo.data.splits.kfold import fold_indices
from hpo.errors import DataError

BINS = 10


def read_numbers(splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str]) -> dict[str, list[float]]:
    """The label column of all splits as finite numbers. Raises `DataError` naming the file and rows of what is none."""
    return {split: _read(rows, column, f"{origins[split]}, column '{column}'") for split, rows in splits.items()}


def has_fractions(rows: Dataset, column: str) -> bool:
    """Whether a column holds numbers, and they are a measure rather than ids: some are fractions."""
    kind = rows.data.table.schema.field(column).type
    if not (pa.types.is_floating(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return False
    try:
        found = {float(value) for value in column_values(rows, column) if value not in (None, "")}
    except ValueError:
        return False
    return any(math.isfinite(value) and not value.is_integer() for value in found)


def check_numbers(splits: Mapping[str, Dataset], origins: Mapping[str, str]) -> list[str]:
    """Refuse numbers that nothing can be learnt from or judged by."""
    if len(splits["train"]) < 2:
        raise DataError(f"{origins['train']}: 1 row is too few to train on.")
    for split, rows in splits.items():
        values = column_values(rows, "label")
        if len(set(values)) < 2:
            where = origins.get(split, f"{split}, made from {origins['train']}")
            raise DataError(f"{where}: every label is {values[0]:g}: nothing can be learnt from it or judged by it.")
    for fold, (split, places) in enumerate(fold_indices(splits), 1):
        values = column_values(splits[split], "label")
        if len({values[place] for place in places}) < 2:
            raise DataError(
                f"data.folds: every label of fold {fold} ({count(len(places), 'row')}) is {values[places[0]]:g}: "
                "nothing can be judged by it. Fewer folds, or more rows."
            )
    return []


def quantile_bins(values: Sequence[float]) -> list[int]:
    """A number from 0 to 9 for each value: the tenth of all values that it falls in."""
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
    return [int(place) for place in np.searchsorted(edges, values, side="right")]


def _read(rows: Dataset, column: str, where: str) -> list[float]:
    kind = rows.data.table.schema.field(column).type
    if kind == MIXED or pa.types.is_nested(kind):
        raise DataError(f"{where}: holds {'values of several types' if kind == MIXED else kind}, not a number a row.")
    read = [_number(value) for value in column_values(rows, column)]
    missing = [place for place, value in enumerate(read, 1) if value is None]
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {count(len(read), 'row')} without a number ({row_numbers(missing)}). Fill "
            "them in or take these rows out."
        )
    strange = [place for place, value in enumerate(read, 1) if isinstance(value, str)]
    if strange:
        raise DataError(
            f"{where}, row {strange[0]}: '{read[strange[0] - 1]}' is not a finite number, as this task needs. Labels "
            "that are words are classes: `task: text-classification`."
        )
    return [float(value) for value in read if value is not None]


def _number(value: Any) -> float | str | None:
    """A value as a number, None where there is none, or its spelling where it is something else."""
    if value is None or (isinstance(value, str) and not value.strip()) or value != value:
        return None
    try:
        number = float(value)
    except ValueError:
        return str(value)
    if math.isnan(number):
        return None
    return number if math.isfinite(number) else str(value)
