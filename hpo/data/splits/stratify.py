"""Stratified splits and folds: rows with the same key stay together, and each side gets its fraction of every class."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def stratified_split(
    keys: Sequence[str], labels: Sequence[int], sizes: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    """Return the row indices of train and of each split in `sizes`, which maps a split to its fraction of every class.

    Rows with the same key are never separated. Every class keeps one key group in train, then gives one to validation
    and then one to test, as far as it has groups. The result is deterministic for a given seed.
    """
    random = np.random.default_rng(seed)
    sides: dict[str, list[int]] = {"train": [], **{split: [] for split in sizes}}
    # Rows that rounding withheld from a split in one class; the next class compensates for them.
    carried = dict.fromkeys(sizes, 0.0)
    order = [split for split in ("validation", "test") if split in sizes]
    for members in _groups_by_class(keys, labels):
        left = [members[index] for index in random.permutation(len(members))]
        total = sum(map(len, left))
        for rank, split in enumerate(order):
            wanted = sizes[split] * total + carried[split]
            picked, left = _pick(left, wanted, reserve=len(order) - rank)
            sides[split] += [row for group in picked for row in group]
            carried[split] = float(np.clip(wanted - sum(map(len, picked)), -1, 1))
        sides["train"] += [row for group in left for row in group]
    return {split: sorted(rows) for split, rows in sides.items()}


def stratified_folds(keys: Sequence[Any], labels: Sequence[int], folds: int, seed: int) -> list[int]:
    """Return the fold of each row, counted from 0.

    Rows with the same key share a fold; classes and sizes are balanced over the folds. Greedy: the groups of a class,
    the largest first, each join the fold with the fewest rows of that class, ties going to the smallest fold.
    """
    random = np.random.default_rng(seed)
    fold_of, sizes = [0] * len(keys), [0] * folds
    for members in _groups_by_class(keys, labels):
        of_class = [0] * folds
        shuffled = [members[index] for index in random.permutation(len(members))]
        for group in sorted(shuffled, key=len, reverse=True):
            fold = min(range(folds), key=lambda number: (of_class[number], sizes[number]))
            of_class[fold] += len(group)
            sizes[fold] += len(group)
            for row in group:
                fold_of[row] = fold
    return fold_of


def connected_groups(keys: Sequence[Any], others: Sequence[Any]) -> list[int]:
    """Return a group number for each row; rows that share a key or one of the `others`, even indirectly, share it."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, first = np.unique(np.array(keys, dtype=str), return_inverse=True)
    _, second = np.unique(np.array(others, dtype=str), return_inverse=True)
    size = int(first.max()) + int(second.max()) + 2
    edges = coo_array((np.ones(len(keys)), (first, second + int(first.max()) + 1)), shape=(size, size))
    _, component = connected_components(edges, directed=False)
    return [int(number) for number in component[first]]


def _groups_by_class(keys: Sequence[Any], labels: Sequence[int]) -> list[list[list[int]]]:
    """Return for each class its groups, each a list of row indices; the first row's class is that of the group."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        groups[key].append(index)
    by_class: dict[int, list[list[int]]] = defaultdict(list)
    for rows in groups.values():
        by_class[labels[rows[0]]].append(rows)
    return [members for _, members in sorted(by_class.items())]


def _pick(groups: list[list[int]], wanted: float, reserve: int) -> tuple[list[list[int]], list[list[int]]]:
    """Pick groups up to `wanted` rows and leave at least `reserve` groups.

    Where no group fits, the smallest is picked, provided that another one is left. Returns the picked and the others.
    """
    picked: list[list[int]] = []
    left: list[list[int]] = []
    rows = 0
    for index, group in enumerate(groups):
        available = len(left) + len(groups) - index > reserve
        if available and rows + len(group) <= wanted + 0.5:
            picked.append(group)
            rows += len(group)
        else:
            left.append(group)
    if not picked and len(left) > 1:
        smallest = min(range(len(left)), key=lambda index: len(left[index]))
        picked.append(left.pop(smallest))
    return picked, left
