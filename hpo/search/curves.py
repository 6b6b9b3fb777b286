"""Learning curves, each over its own schedule, and the fraction of trials that beat each one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from hpo.storage.records.trial import rungs_of

Array = np.ndarray

# Shares of the schedule at which trials are compared: closer together at the start, where most are pruned. Those
# below 1% are for schedules whose rungs double.
GRID = np.array([*2.0 ** -np.arange(13, 5, -1), 0.02, 0.04, 0.08, 0.12, 0.16, 0.25, 0.35, 0.5, 0.65, 0.8, 1.0])


@dataclass(frozen=True)
class LearningCurve:
    """A trial's losses (smaller is better), (reports,), each at a share of the trial's own schedule."""

    shares: Array
    losses: Array

    @property
    def progress(self) -> float:
        """The share of the schedule at the last report, up to 1."""
        return float(self.shares[-1])

    def truncated(self, count: int) -> "LearningCurve":
        """Return the curve of the first `count` reports."""
        return replace(self, shares=self.shares[:count], losses=self.losses[:count])


def learning_curve(trial: FrozenTrial, sign: float, default_rungs: int) -> LearningCurve | None:
    """Return the trial's reports up to the first that is not finite; None without any.

    `sign` times a value is a loss (`loss_sign`). `default_rungs` is the length of the schedule of a trial that did not
    record it. The value of a complete trial is the end of its curve, whenever that came (early stopping), and the
    only point of one that reported nothing.
    """
    steps = sorted(trial.intermediate_values)
    losses = [sign * trial.intermediate_values[step] for step in steps]
    finite = next((index for index, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    steps, losses = steps[:finite], losses[:finite]
    if trial.state == TrialState.COMPLETE:
        if not steps:
            steps, losses = [1], [0.0]
        losses[-1] = sign * float(trial.value or 0.0)
        rungs = steps[-1]
    else:
        rungs = max(scheduled_rungs(trial, default_rungs), steps[-1] if steps else 1)
    if not steps:
        return None
    return LearningCurve(np.array(steps) / rungs, np.array(losses))


def scheduled_rungs(trial: FrozenTrial, default: int) -> int:
    """Return the number of rungs in the trial's own schedule, or `default` if it did not record it."""
    return rungs_of(trial) or default


def max_reported_step(trials: Sequence[FrozenTrial]) -> int:
    """Return the last step that any trial reported: the length of the schedule of trials that did not record theirs."""
    return max((trial.last_step or 1 for trial in trials), default=1)


def fraction_better(curves: Sequence[LearningCurve | None]) -> Array:
    """Return the fraction of trials that beat each one, (trials,): 0 is the best; a trial without a curve gets 1.

    Two trials are compared at the last share of the schedule that both reached; equal ones count half. Takes a few
    milliseconds for 1,000 trials.
    """
    fractions = np.full(len(curves), 1.0)
    present = np.array([index for index, curve in enumerate(curves) if curve is not None], dtype=int)
    known = [curve for curve in curves if curve is not None]
    if not known:
        return fractions
    losses = np.array([np.interp(GRID, curve.shares, curve.losses) for curve in known])
    # A curve that ends before the first share of the grid is compared there.
    reached = np.maximum(np.searchsorted(GRID, [curve.progress + 1e-9 for curve in known]) - 1, 0)
    better = np.full(len(known), -0.5)  # each one is counted as equal to itself
    for level in np.unique(reached):
        column, stopped, beyond = losses[:, level], reached == level, reached > level
        better[stopped] += _count_below(column[stopped], column[stopped | beyond])
        better[beyond] += _count_below(column[beyond], column[stopped])
    fractions[present] = better / len(known)
    return fractions


def _count_below(losses: Array, others: Array) -> Array:
    """Return how many of `others` are below each of `losses`, with equal ones counted half."""
    others = np.sort(others)
    return (np.searchsorted(others, losses) + np.searchsorted(others, losses, side="right")) / 2
