"""Grouped splits: rows with the same value in a column (a patient, an author, a document) share a split."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.core.format import count
from hpo.data.columns import GROUP, column_values, missing_column
from hpo.data.splits.create import drop_overlap, missing_split_sizes, take
from hpo.data.splits.stratify import stratified_split
from hpo.errors import DataError


def group_splits(
    given: Mapping[str, Dataset], origins: Mapping[str, str], config: DataConfig, seed: int
) -> tuple[dict[str, Dataset], list[str]]:
    """Return the splits without the column `config.group`, and notes; missing ones are sampled from train by group.

    A group that two given splits share stays in the one used later (test, then validation); its rows are dropped from
    the other. With `config.folds`, the column `GROUP` of train numbers the groups, for the folds to respect. Raises
    `DataError` where the column or a value of it is missing, or there are too few groups.
    """
    groups = {split: _groups(rows, config, origins[split]) for split, rows in given.items()}
    splits, notes = drop_overlap(given, groups, f"'{config.group}'", "data.group")
    sizes = missing_split_sizes(splits, config)
    known = _groups(splits["train"], config, origins["train"])
    if sizes:
        rows = splits["train"]
        if len(set(known)) <= len(sizes):
            need = "each need one of their own" if len(sizes) > 1 else "needs one of its own"
            raise DataError(
                f"data.group: {origins['train']} has {count(len(set(known)), 'group')} by '{config.group}': "
                f"{' and '.join(sizes)} {need}, and train another."
            )
        sides = stratified_split(known, [0] * len(known), sizes, seed)
        splits |= {split: take(rows, indices) for split, indices in sides.items()}
        created = " and ".join(f"{split} ({len(splits[split])} rows)" for split in sizes)
        notes.append(
            f"{created} taken from {len(rows)} training rows, in complete groups of the {len(set(known))} by "
            f"'{config.group}', seed {seed}"
        )
        known = [known[index] for index in sides["train"]]
    splits = {split: rows.remove_columns(config.group) for split, rows in splits.items()}
    if config.folds is not None:
        _, numbers = np.unique(np.array(known, dtype=str), return_inverse=True)
        splits["train"] = Dataset(splits["train"].data.table.append_column(GROUP, pa.array(numbers, pa.int64())))
        notes.append(f"folds of complete groups by '{config.group}'")
    return splits, notes


def _groups(rows: Dataset, config: DataConfig, origin: str) -> list[str]:
    assert config.group is not None
    if config.group not in rows.column_names:
        raise missing_column("data.group", config.group, rows.column_names, origin)
    values = column_values(rows, config.group)
    empty = next((row for row, value in enumerate(values, 1) if value is None or value == ""), None)
    if empty is not None:
        raise DataError(f"{origin}, row {empty}: no '{config.group}': data.group needs a value in each row.")
    return [str(value) for value in values]
