"""Stratified subsamples of the training rows, for few-shot learning and for searches on less data."""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np


def sample_rows(strata: Sequence[int], seed: int, fraction: float = 1.0, shots: int | None = None) -> list[int]:
    """Return the sorted indices of a sample: `shots` rows of each stratum, or a `fraction` of each, at least one.

    A stratum with fewer than `shots` rows is returned complete. The result is deterministic for a given seed, and a
    larger sample contains every smaller one, so that trials with different fractions are comparable.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index, stratum in enumerate(strata):
        members[stratum].append(index)
    random = np.random.default_rng([seed, len(strata)])
    chosen: list[int] = []
    for _, rows in sorted(members.items()):
        order = random.permutation(len(rows))
        wanted = math.ceil(fraction * len(rows) - 1e-9) if shots is None else shots
        chosen += [rows[index] for index in order[:wanted]]
    return sorted(chosen)
