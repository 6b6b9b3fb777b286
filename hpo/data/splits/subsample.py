"""A part of the training rows, drawn by class: for few-shot learning, and for searching on less data."""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np


def sample_rows(strata: Sequence[int], seed: int, fraction: float = 1.0, shots: int | None = None) -> list[int]:
    """The places of `shots` rows of each stratum (all, where it has no more), or of the share `fraction`, at least one.

    The same for the same seed, in order. A larger draw holds every smaller one: the search compares like with like.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for place, stratum in enumerate(strata):
        members[stratum].append(place)
    random = np.random.default_rng([seed, len(strata)])
    chosen: list[int] = []
    for _, places in sorted(members.items()):
        order = random.permutation(len(places))
        wanted = math.ceil(fraction * len(places) - 1e-9) if shots is None else shots
        chosen += [places[index] for index in order[:wanted]]
    return sorted(chosen)
