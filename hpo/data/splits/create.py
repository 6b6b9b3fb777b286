"""Train, validation and test: those given, the missing ones made, none sharing a text with another."""

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.core.format import count
from hpo.data.columns import FOLD, GROUP, column_values
from hpo.data.splits.stratify import connected_groups, stratified_folds, stratified_split
from hpo.errors import DataError

TEXT_ROLES = ("text", "text_pair")


def normalize_text(*texts: str) -> str:
    """What makes two texts the same: their words, whatever the case and white space."""
    return "\0".join(" ".join(text.casefold().split()) for text in texts)


def text_keys(rows: Dataset) -> list[str]:
    """The normalised text, or pair of texts, of each row; where rows are files, a digest of each."""
    if "digest" in rows.column_names:  # images and sound
        return column_values(rows, "digest")
    columns = [column_values(rows, role) for role in TEXT_ROLES if role in rows.column_names]
    return [normalize_text(*map(_joined, texts)) for texts in zip(*columns, strict=True)]


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else " ".join(text)


def take(rows: Dataset, places: Sequence[int]) -> Dataset:
    """The rows at `places`, copied: unlike `Dataset.select`, no lookup is left between a row and its place."""
    return Dataset(rows.data.table.take(pa.array(places, pa.int64())))


def create_splits(
    given: Mapping[str, Dataset],
    config: DataConfig,
    seed: int,
    strata: Callable[[Dataset], Sequence[int]] = lambda rows: column_values(rows, "label"),
    groups: Callable[[Dataset], Sequence[str]] = text_keys,
    even: str = "label",
) -> tuple[dict[str, Dataset], list[str]]:
    """Complete `given` (train, and validation and test or not) and keep the splits disjoint by normalised text.

    Rows have the columns text (a text, or its words) and text_pair or not. A text that two given splits share stays
    in the one that is touched later (test, then validation) and is dropped from the other. What is missing is taken
    from train, the same for the same seed: rows of one group stay together, and each of the `strata`, which is what
    notes call `even`, gives the same share of its rows. With `config.folds` the rows of train and validation have a
    column that numbers their fold; validation is the first. Returns the three splits and notes that say what was
    dropped and made. Raises `DataError` where too few rows are left.
    """
    same = "file" if "digest" in given["train"].column_names else "text, case and white space aside,"
    splits, notes = drop_overlap(given, {split: text_keys(rows) for split, rows in given.items()}, same)
    sizes = missing_split_sizes(splits, config)
    if sum(sizes.values()) >= 1:
        raise DataError(
            f"data: test_size {config.test_size} and validation_size {config.validation_size} leave nothing to "
            "train on: their sum must be below 1."
        )
    if sizes and config.group is not None:
        # They were made by group before; a test split without labels was left out since.
        raise DataError(
            f"data.group: {' and '.join(sizes)} has no labels, and nothing is taken in its place where rows stay "
            "together: give it labels, or leave it out of the data."
        )
    if sizes:
        rows = splits["train"]
        dealt = strata(rows)
        sides = stratified_split(groups(rows), dealt, sizes, seed)
        splits |= {split: take(rows, places) for split, places in sides.items()}
        made = " and ".join(f"{split} ({len(splits[split])} rows)" for split in sizes)
        notes.append(f"{made} taken from {len(rows)} training rows, {_how(dealt, even)}seed {seed}")
    if config.folds is not None:
        dealt = strata(splits["train"])
        notes.append(
            f"{config.folds} folds of the {len(splits['train'])} training rows, {_how(dealt, even)}seed {seed}: each "
            "is validated on once, by a model that the others trained"
        )
        assert (GROUP in splits["train"].column_names) == (config.group is not None)  # no task lost it
        splits |= _with_folds(splits["train"], groups(splits["train"]), dealt, config.folds, seed)
    for split, rows in splits.items():
        if len(rows) == 0:
            whole = given["train"]
            texts, classes = len(set(text_keys(whole))), len(set(strata(whole)))
            of_classes = f", {count(classes, 'class', 'classes')}" if even == "label" else ""
            raise DataError(
                f"data: {count(len(whole), 'training row')} ({count(texts, 'different text')}{of_classes}) are too "
                f"few: none is left for {split}."
            )
    return splits, notes


def missing_split_sizes(given: Mapping[str, Dataset], config: DataConfig) -> dict[str, float]:
    """The splits that are to be taken from train, and their shares of it."""
    sizes = {"test": config.test_size, "validation": config.validation_size}
    if config.folds is not None:
        del sizes["validation"]
    return {split: size for split, size in sizes.items() if split not in given}


def _with_folds(rows: Dataset, keys: Sequence[str], strata: Sequence[int], folds: int, seed: int) -> dict[str, Dataset]:
    """Rows of which those of the first fold are validation, the others train; the column `FOLD` tells which."""
    together: Sequence[str | int] = keys
    if GROUP in rows.column_names:
        together = connected_groups(keys, column_values(rows, GROUP))
        rows = rows.remove_columns(GROUP)
    if len(set(together)) < folds:
        few = f"{count(len(rows), 'row')} that can be kept apart in {count(len(set(together)), 'part')}"
        raise DataError(f"data.folds: {folds} folds need as many different training rows at least; here are {few}.")
    dealt = stratified_folds(together, strata, folds, seed)
    numbered = Dataset(rows.data.table.append_column(FOLD, pa.array(dealt, pa.int64())))
    first = [place for place, fold in enumerate(dealt) if fold == 0]
    others = [place for place, fold in enumerate(dealt) if fold != 0]
    return {"train": take(numbered, others), "validation": take(numbered, first)}


def _how(dealt: Sequence[int], even: str) -> str:
    return f"stratified by {even}, " if len(set(dealt)) > 1 else ""


def drop_overlap(
    given: Mapping[str, Dataset], keys: Mapping[str, Sequence[str]], same: str, where: str = "data"
) -> tuple[dict[str, Dataset], list[str]]:
    """The given splits without rows whose key (one a row) is in a split that is touched later; and notes.

    `same` says in a note what such rows share. Raises `DataError`, which begins with `where`, for a split of which
    nothing would be left.
    """
    splits, notes = dict(given), []
    kept: dict[str, set[str]] = {}
    for split in ("test", "validation", "train"):
        if split not in splits:
            continue
        places = list(range(len(splits[split])))
        for other, taken in kept.items():
            left = [place for place in places if keys[split][place] not in taken]
            if places and not left:
                raise DataError(f"{where}: the {same} of every row of {split} is in {other} too: give each its own.")
            if len(left) < len(places):
                dropped = count(len(places) - len(left), f"{'training' if split == 'train' else split} row")
                notes.append(f"{dropped} dropped: the same {same} is in {other}")
            places = left
        if len(places) < len(splits[split]):
            splits[split] = take(splits[split], places)
        kept[split] = {keys[split][place] for place in places}
    return splits, notes
