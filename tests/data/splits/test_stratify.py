"""Stratified splits and folds: balanced, deterministic, and rows with the same key together."""

from collections import Counter

import pytest

from hpo.data.splits.stratify import connected_groups, stratified_folds, stratified_split


@pytest.mark.parametrize(
    ("keys", "sizes"),
    [
        (["a", "b", "c"] * 2, (2, 2, 2)),  # three keys of two rows each: one for each split
        (["a", "b", "c", "d"], (2, 1, 1)),
        (["a"] * 8 + ["b", "c"], (8, 1, 1)),  # a key with most of the class cannot be divided
    ],
)
def test_small_classes_give_each_split_a_group(keys: list[str], sizes: tuple[int, int, int]) -> None:
    sides = stratified_split(keys, [0] * len(keys), {"test": 0.15, "validation": 0.15}, seed=0)
    assert tuple(len(sides[split]) for split in ("train", "validation", "test")) == sizes
    assert sorted(row for rows in sides.values() for row in rows) == list(range(len(keys)))


def test_folds_are_balanced_and_keep_groups_together() -> None:
    labels = [0] * 20 + [1] * 7 + [2] * 3
    keys = [f"text {row // 2}" for row in range(20)] + [f"other {row}" for row in range(10)]
    folds = stratified_folds(keys, labels, 3, seed=1)
    for label, most in ((0, 2), (1, 1), (2, 0)):
        count = Counter(fold for fold, known in zip(folds, labels, strict=True) if known == label)
        assert len(count) == 3 and max(count.values()) - min(count.values()) <= most
    assert all(folds[row] == folds[row + 1] for row in range(0, 20, 2))
    assert stratified_folds(keys, labels, 3, seed=1) == folds != stratified_folds(keys, labels, 3, seed=2)


def test_connected_groups_joins_rows_through_either_key() -> None:
    assert connected_groups(["a", "b", "c", "c", "d"], [1, 1, 2, 3, 3]) == [0, 0, 1, 1, 1]
