"""Decides early stopping and which rung counts, for a single run and for the mean over folds."""

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


def outcome_rung(values: Sequence[float], direction: Direction, patience: int | None) -> int:
    """Return the rung, from 1, that a run's value and model are of: the first best one with a patience, else the last.

    The rungs after the best one are what patience waits for; their values are worse.

    >>> outcome_rung([0.5, 0.7, 0.6, 0.7], "maximize", patience=2)
    2
    """
    if patience is None:
        return len(values)
    best = max if higher_is_better(direction) else min
    return values.index(best(values)) + 1
