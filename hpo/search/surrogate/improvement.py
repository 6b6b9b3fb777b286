"""What it is worth to go on with a training: the price of compute at which its next look is just paid for."""

import numpy as np
from scipy.special import ndtr

Array = np.ndarray

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
ROUNDS = 6  # of Newton's method, which comes from below


def expected_improvement(best: Array | float, mean: Array, deviation: Array) -> Array:
    """How far below `best` a normal value is expected to fall, counting nothing where it does not (Mockus, 1975)."""
    away = best - mean
    units = away / deviation
    gain: Array = away * ndtr(units) + deviation * np.exp(-0.5 * units**2) / np.sqrt(2 * np.pi)
    return gain


def price(best: Array | float, mean: Array, before: Array, after: Array, look: Array, rest: Array) -> Array:
    """The highest price of compute at which one more look pays, for each of n trainings, (n,).

    A training's end is normal with `mean` and deviation `before`. A look costs `look`, and leaves the deviation
    `after`; then it is either dropped or taken to its end, which costs `rest` and improves on `best` or not. The price
    is in improvement per unit of compute: an index as Gittins's (1979), of two stages.
    """
    moved = np.sqrt(np.maximum(before**2 - after**2, 0))
    gains = expected_improvement(
        np.asarray(best).reshape(-1, 1), mean[:, None] + moved[:, None] * NODES, after[:, None]
    )
    found = gains @ WEIGHTS / (look + rest)
    for _ in range(ROUNDS):
        left = gains - (found * rest)[:, None]
        value = np.maximum(left, 0) @ WEIGHTS - found * look
        slope = (left > 0) @ WEIGHTS * rest + look
        found = found + np.maximum(value, 0) / slope
    return found
