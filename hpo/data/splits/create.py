"""Train, validation and test: the given splits, the missing ones sampled from train, and no text in two of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from weakref import WeakKeyDictionary

import pyarrow as pa
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.core.format import count
from hpo.data.columns import FOLD, GROUP, as_rows, column_values
from hpo.data.splits.stratify import connected_groups, stratified_folds, stratified_split
from hpo.errors import DataError

TEXT_ROLES = ("text", "text_pair")
BATCH = 20_000
_KEYS: WeakKeyDictionary[Dataset, list[str]] = WeakKeyDictionary()  # of rows that several steps compare


def normalize_text(*texts: str) -> str:
    """Return a key that is equal for texts with the same words, case and white space aside."""
    return "\0".join(" ".join(text.casefold().split()) for text in texts)


def text_keys(rows: Dataset) -> list[str]:
    """Return a digest of the normalized text, or pair of texts, of each row; of media files, the digest of each."""
    if "digest" in rows.column_names:
        return column_values(rows, "digest")
    if rows not in _KEYS:
        _KEYS[rows] = list(_digests(rows))
    return _KEYS[rows]


def _digests(rows: Dataset) -> Iterator[str]:
    names = [role for role in TEXT_ROLES if role in rows.column_names]
    plain = rows.with_format(None)
    for start in range(0, len(rows), BATCH):
        columns = [plain[name][start : start + BATCH] for name in names]
        for texts in zip(*columns, strict=True):
            text = normalize_text(*map(_joined, texts)).encode(errors="surrogatepass")
            yield blake2b(text, digest_size=8).hexdigest()  # of 1.4 million texts, two are equal once in 10⁷ times


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else " ".join(text)


def take(rows: Dataset, indices: Sequence[int]) -> Dataset:
    """Return a copy of the rows at `indices`; unlike `Dataset.select`, it stores no index mapping."""
    return as_rows(rows.data.table.take(pa.array(indices, pa.int64())))


def create_splits(
    given: Mapping[str, Dataset],
    config: DataConfig,
    seed: int,
    strata: Callable[[Dataset], Sequence[int]] = lambda rows: column_values(rows, "label"),
    groups: Callable[[Dataset], Sequence[str]] = text_keys,
    stratified_by: str = "label",
) -> tuple[dict[str, Dataset], list[str]]:
    """Return train, validation and test, disjoint by normalized text, and notes on what was dropped and created.

    `given` contains train, and optionally validation and test, with the columns text (a string, or a list of words)
    and optionally text_pair. A text that two given splits share stays in the one used later (test, then validation).
    Missing splits are sampled from train, deterministically for a given seed: rows of one group stay together, and
    each stratum contributes the same fraction of its rows. Notes call the strata `stratified_by`. With
    `config.folds`, the rows of train and validation have a column with their fold, and validation is the first fold.
    Raises `DataError` where too few rows are left.
    """
    shared = "file" if "digest" in given["train"].column_names else "text, case and white space aside,"
    splits, notes = drop_overlap(given, {split: text_keys(rows) for split, rows in given.items()}, shared)
    sizes = missing_split_sizes(splits, config)
    _check_sizes(sizes, config)
    if sizes:
        rows = splits["train"]
        classes = strata(rows)
        sides = stratified_split(groups(rows), classes, sizes, seed)
        splits |= {split: take(rows, indices) for split, indices in sides.items()}
        created = " and ".join(f"{split} ({len(splits[split])} rows)" for split in sizes)
        notes.append(f"{created} taken from {len(rows)} training rows, {_how(classes, stratified_by)}seed {seed}")
    if config.folds is not None:
        rows = splits["train"]
        classes = strata(rows)
        notes.append(
            f"{config.folds} folds of the {len(rows)} training rows, {_how(classes, stratified_by)}seed {seed}; each "
            "is validated on once, by a model trained on the others"
        )
        assert (GROUP in rows.column_names) == (config.group is not None), "a task dropped the group column"
        splits |= _with_folds(rows, groups(rows), classes, config.folds, seed)
    _check_not_empty(splits, given["train"], strata, stratified_by)
    return splits, notes


def missing_split_sizes(given: Mapping[str, Dataset], config: DataConfig) -> dict[str, float]:
    """Return the splits that have to be sampled from train, with the fraction of it for each."""
    sizes = {"test": config.test_size, "validation": config.validation_size}
    if config.folds is not None:
        del sizes["validation"]
    return {split: size for split, size in sizes.items() if split not in given}


def _check_sizes(sizes: Mapping[str, float], config: DataConfig) -> None:
    if sum(sizes.values()) >= 1:
        raise DataError(
            f"data: test_size {config.test_size} and validation_size {config.validation_size} leave no rows to train "
            "on: their sum must be below 1."
        )
    if sizes and config.group is not None:
        # Grouped splits were created before: only a test split without labels, which is skipped, can be missing here.
        raise DataError(
            f"data.group: {' and '.join(sizes)} has no labels, and with groups no other is sampled from train: add its "
            "labels, or remove it from the data."
        )


def _check_not_empty(
    splits: Mapping[str, Dataset], train: Dataset, strata: Callable[[Dataset], Sequence[int]], stratified_by: str
) -> None:
    for split, rows in splits.items():
        if len(rows) == 0:
            texts, classes = len(set(text_keys(train))), len(set(strata(train)))
            of_classes = f", {count(classes, 'class', 'classes')}" if stratified_by == "label" else ""
            raise DataError(
                f"data: {count(len(train), 'training row')} ({count(texts, 'different text')}{of_classes}) are too "
                f"few: none is left for {split}.{_rare_classes(classes, len(train)) if of_classes else ''}"
            )


def _rare_classes(classes: int, rows: int) -> str:
    """Return a hint where most classes cannot have a row in each of three splits; a column of texts or ids is one."""
    if classes < 20 or rows >= 3 * classes:
        return ""
    return (
        f" With {rows / classes:.1f} rows per class on average, no class reaches all splits, which takes 3: is "
        "`data.label` the right column? If so, merge rare classes, or give the splits as files of their own."
    )


def _with_folds(rows: Dataset, keys: Sequence[str], strata: Sequence[int], folds: int, seed: int) -> dict[str, Dataset]:
    """Split rows into validation (the first fold) and train (the others), with each row's fold in column `FOLD`."""
    together: Sequence[str | int] = keys
    if GROUP in rows.column_names:
        together = connected_groups(keys, column_values(rows, GROUP))
        rows = rows.remove_columns(GROUP)
    if len(set(together)) < folds:
        few = f"{count(len(rows), 'row')} in {count(len(set(together)), 'separable part')}"
        raise DataError(f"data.folds: {folds} folds need at least as many different training rows; there are {few}.")
    fold_of = stratified_folds(together, strata, folds, seed)
    numbered = Dataset(rows.data.table.append_column(FOLD, pa.array(fold_of, pa.int64())))
    first = [index for index, fold in enumerate(fold_of) if fold == 0]
    others = [index for index, fold in enumerate(fold_of) if fold != 0]
    return {"train": take(numbered, others), "validation": take(numbered, first)}


def _how(classes: Sequence[int], stratified_by: str) -> str:
    return f"stratified by {stratified_by}, " if len(set(classes)) > 1 else ""


def drop_overlap(
    given: Mapping[str, Dataset], keys: Mapping[str, Sequence[str]], shared: str, where: str = "data"
) -> tuple[dict[str, Dataset], list[str]]:
    """Drop rows whose key (one per row) is in a split that is used later; return the splits and notes.

    `shared` names in a note what such rows have in common. Raises `DataError`, whose message starts with `where`, for
    a split that would be empty.
    """
    splits, notes = dict(given), []
    kept: dict[str, set[str]] = {}
    for split in ("test", "validation", "train"):
        if split not in splits:
            continue
        indices = list(range(len(splits[split])))
        for other, used in kept.items():
            left = [index for index in indices if keys[split][index] not in used]
            if indices and not left:
                raise DataError(f"{where}: the {shared} of every row of {split} is in {other} too: use different rows.")
            if len(left) < len(indices):
                dropped = count(len(indices) - len(left), f"{'training' if split == 'train' else split} row")
                notes.append(f"{dropped} dropped: the same {shared} is in {other}")
            indices = left
        if len(indices) < len(splits[split]):
            splits[split] = take(splits[split], indices)
        kept[split] = {keys[split][index] for index in indices}
    return splits, notes
