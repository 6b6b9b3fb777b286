"""Dealing rows out, to train, validation and test or to folds: copies stay together, each side gets its share of each
class."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def stratified_split(
    keys: Sequence[str], labels: Sequence[int], sizes: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    """Deal the rows out: the share `sizes` of each class to each side, the rest to train, copies together.

    Every class keeps a group in train, then gives one to validation, then to test, where it has as many.
    """
    random = np.random.default_rng(seed)
    sides: dict[str, list[int]] = {"train": [], **{split: [] for split in sizes}}
    owed = dict.fromkeys(sizes, 0.0)  # what rounding kept from a side in one class, it gets in the next
    sides_by_need = [split for split in ("validation", "test") if split in sizes]
    for members in _by_class(keys, labels):
        left = [members[place] for place in random.permutation(len(members))]
        total = sum(map(len, left))
        for place, split in enumerate(sides_by_need):
            wanted = sizes[split] * total + owed[split]
            picked, left = _pick(left, wanted, leave=len(sides_by_need) - place)
            sides[split] += [row for group in picked for row in group]
            owed[split] = float(np.clip(wanted - sum(map(len, picked)), -1, 1))
        sides["train"] += [row for group in left for row in group]
    return {split: sorted(places) for split, places in sides.items()}


def stratified_folds(keys: Sequence[Any], labels: Sequence[int], folds: int, seed: int) -> list[int]:
    """The fold of each row, from 0: copies together, each fold with its share of each class and of all rows.

    A group of copies, the largest first, goes where its class has the fewest rows by then, of such to the smallest.
    """
    random = np.random.default_rng(seed)
    dealt, sizes = [0] * len(keys), [0] * folds
    for members in _by_class(keys, labels):
        of_class = [0] * folds
        shuffled = [members[place] for place in random.permutation(len(members))]
        for group in sorted(shuffled, key=len, reverse=True):
            fold = min(range(folds), key=lambda number: (of_class[number], sizes[number]))
            of_class[fold] += len(group)
            sizes[fold] += len(group)
            for row in group:
                dealt[row] = fold
    return dealt


def connected_groups(keys: Sequence[Any], others: Sequence[Any]) -> list[int]:
    """A number for each row: rows that share a key, or one of the `others`, have the same one, and so on from these."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, first = np.unique(np.array(keys, dtype=str), return_inverse=True)
    _, second = np.unique(np.array(others, dtype=str), return_inverse=True)
    size = int(first.max()) + int(second.max()) + 2
    joined = coo_array((np.ones(len(keys)), (first, second + int(first.max()) + 1)), shape=(size, size))
    _, found = connected_components(joined, directed=False)
    return [int(number) for number in found[first]]


def _by_class(keys: Sequence[Any], labels: Sequence[int]) -> list[list[list[int]]]:
    """For each class its groups of copies: the rows of each. A group counts for its first row's class."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        groups[key].append(place)
    by_class: dict[int, list[list[int]]] = defaultdict(list)
    for places in groups.values():
        by_class[labels[places[0]]].append(places)
    return [members for _, members in sorted(by_class.items())]


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
