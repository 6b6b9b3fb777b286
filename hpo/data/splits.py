"""Train, validation and test: those given, the missing ones made, none sharing a text with another."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from datasets import Dataset

from hpo.core.config import DataConfig
from hpo.core.errors import DataError
from hpo.data.columns import column_values
from hpo.data.wording import counted

TEXT_ROLES = ("text", "text_pair")


def normalise(*texts: str) -> str:
    """What makes two texts the same: their words, whatever the case and white space."""
    return "\0".join(" ".join(text.casefold().split()) for text in texts)


def text_keys(rows: Dataset) -> list[str]:
    """The normalised text, or pair of texts, of each row; where rows are files, a digest of each."""
    if "digest" in rows.column_names:  # images and sound
        return column_values(rows, "digest")
    columns = [column_values(rows, role) for role in TEXT_ROLES if role in rows.column_names]
    return [normalise(*map(_joined, texts)) for texts in zip(*columns, strict=True)]


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else " ".join(text)


def take(rows: Dataset, places: Sequence[int]) -> Dataset:
    """The rows at `places`, copied: unlike `Dataset.select`, no lookup is left between a row and its place."""
    return Dataset(rows.data.table.take(pa.array(places, pa.int64())))


def make_splits(
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
    notes call `even`, gives the same share of its rows. Returns the three splits and notes that say what was dropped
    and made. Raises `DataError` where too few rows are left.
    """
    splits, notes = _drop_shared(given)
    sizes = {
        split: size
        for split, size in (("test", config.test_size), ("validation", config.validation_size))
        if split not in splits
    }
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
        sides = deal(groups(rows), dealt, sizes, seed)
        splits |= {split: take(rows, places) for split, places in sides.items()}
        made = " and ".join(f"{split} ({len(splits[split])} rows)" for split in sizes)
        notes.append(f"{made} taken from {len(rows)} training rows, {_how(dealt, even)}seed {seed}")
    for split, rows in splits.items():
        if len(rows) == 0:
            whole = given["train"]
            texts, classes = len(set(text_keys(whole))), len(set(strata(whole)))
            of_classes = f", {counted(classes, 'class', 'classes')}" if even == "label" else ""
            raise DataError(
                f"data: {counted(len(whole), 'training row')} ({counted(texts, 'different text')}{of_classes}) are too "
                f"few: none is left for {split}."
            )
    return splits, notes


def _how(dealt: Sequence[int], even: str) -> str:
    return f"stratified by {even}, " if len(set(dealt)) > 1 else ""


def _drop_shared(given: Mapping[str, Dataset]) -> tuple[dict[str, Dataset], list[str]]:
    splits = dict(given)
    notes = []
    kept: dict[str, set[str]] = {}
    for split in ("test", "validation", "train"):
        if split not in splits:
            continue
        keys = text_keys(splits[split])
        for other, taken in kept.items():
            shared = [place for place, key in enumerate(keys) if key in taken]
            if not shared:
                continue
            if len(shared) == len(keys):
                raise DataError(f"data: every row of {split} is in {other} too: give each split its own rows.")
            gone = set(shared)
            places = [place for place in range(len(keys)) if place not in gone]
            splits[split], keys = take(splits[split], places), [keys[place] for place in places]
            dropped = counted(len(shared), f"{'training' if split == 'train' else split} row")
            same = "file" if "digest" in splits[split].column_names else "text, case and white space aside,"
            notes.append(f"{dropped} dropped: the same {same} is in {other}")
        kept[split] = set(keys)
    return splits, notes


def deal(keys: Sequence[str], labels: Sequence[int], sizes: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Deal the rows out: the share `sizes` of each class to each side, the rest to train, copies together.

    A group of copies counts for its first row's class. Every class keeps a group in train, then gives one to
    validation, then to test, where it has as many.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        groups[key].append(place)
    by_class: dict[int, list[list[int]]] = defaultdict(list)
    for places in groups.values():
        by_class[labels[places[0]]].append(places)
    random = np.random.default_rng(seed)
    sides: dict[str, list[int]] = {"train": [], **{split: [] for split in sizes}}
    owed = dict.fromkeys(sizes, 0.0)  # what rounding kept from a side in one class, it gets in the next
    sides_by_need = [split for split in ("validation", "test") if split in sizes]
    for _, members in sorted(by_class.items()):
        left = [members[place] for place in random.permutation(len(members))]
        total = sum(map(len, left))
        for place, split in enumerate(sides_by_need):
            wanted = sizes[split] * total + owed[split]
            picked, left = _pick(left, wanted, leave=len(sides_by_need) - place)
            sides[split] += [row for group in picked for row in group]
            owed[split] = float(np.clip(wanted - sum(map(len, picked)), -1, 1))
        sides["train"] += [row for group in left for row in group]
    return {split: sorted(places) for split, places in sides.items()}


def _pick(groups: list[list[int]], wanted: float, leave: int) -> tuple[list[list[int]], list[list[int]]]:
    """Take groups up to `wanted` rows and leave at least `leave`; at least the smallest, where one more is there."""
    picked: list[list[int]] = []
    left: list[list[int]] = []
    got = 0
    for place, group in enumerate(groups):
        may_go = len(left) + len(groups) - place > leave
        if may_go and got + len(group) <= wanted + 0.5:
            picked.append(group)
            got += len(group)
        else:
            left.append(group)
    if not picked and len(left) > 1:
        smallest = min(range(len(left)), key=lambda place: len(left[place]))
        picked.append(left.pop(smallest))
    return picked, left
