"""Decides early stopping, for a single run and for the mean over folds."""

from collections.abc import Sequence

from hpo.core.direction import Direction, higher_is_better


def should_stop_early(values: Sequence[float], direction: Direction, patience: int | None) -> bool:
    """Return whether none of the last `patience` values improves on the best value before them.

    >>> should_stop_early([0.5, 0.7, 0.6, 0.7], "maximize", patience=2)
    True
    """
    if patience is None or len(values) <= patience:
        return False
    best = max if higher_is_better(direction) else min
    before, last = best(values[:-patience]), best(values[-patience:])
    return best(before, last) == before
