"""What a running trial is likely to end at, told from its curve so far and from those of the study's other trials."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtri, stdtr

from hpo.study.rules import RUNGS

Array = np.ndarray

# Shares of the schedule at which trials are compared: closer together at the start, where most are stopped.
GRID = np.array([0.02, 0.04, 0.08, 0.12, 0.16, 0.25, 0.35, 0.5, 0.65, 0.8, 1.0])

# What is assumed of the way from a share of the schedule to its end before the study has shown it, in units of the
# distance from the best trial to the middle one: no drift, and a spread of SPREAD times the root of what is left.
SPREAD = 1.0
# How many trials' worth of evidence that is, for the drift, for what the standing so far changes in it, for the spread.
DRIFT_COUNT, SLOPE_COUNT, SPREAD_COUNT = 0.5, 1.0, 3.0
CLIP = 4.0


@dataclass(frozen=True)
class Curve:
    """A trial's losses (smaller is better), each at its share of the trial's own schedule; `gone` if it ended early."""

    shares: Array
    losses: Array
    gone: bool = False

    @property
    def reach(self) -> float:
        return float(self.shares[-1])

    @property
    def last(self) -> float:
        return float(self.losses[-1])

    def at(self, share: float) -> float:
        return float(np.interp(share, self.shares, self.losses))


def prospects(mine: Curve, others: Sequence[Curve], ambition: float) -> tuple[float, float]:
    """The chances that `mine`, and that a new trial, end better than all by `ambition`.

    The unit of `ambition` and of all below is the distance from the best to the middle one at this share of the
    schedule, those counting as worse that left before it. Better than all are those that ended or are ahead by now:
    what was stopped is no rival. Bayesian linear regression with a normal-inverse-gamma prior, in closed form, leads
    from a trial's loss here to what the rest of its schedule brings, as it did for the others; one that is still on
    its way counts by how far it is.
    """
    share = mine.reach
    there = [other for other in others if other.reach > share - 1e-9]
    ahead = [other for other in there if other.reach > share + 1e-9]
    rivals = [other.last for other in there if not other.gone]
    here = np.sort([mine.last, *(other.at(share) for other in there)])
    count = len(here) + sum(other.gone for other in others if other.reach <= share - 1e-9)
    best, middle = float(here[0]), float(here[min(count // 2, len(here) - 1)])
    unit = max(middle - best, 1e-3 * abs(best), 1e-9)
    way = np.array([(other.reach - share) / (1 - share) for other in ahead])
    start = np.clip([(other.at(share) - best) / unit for other in ahead], 0, CLIP)
    brought = np.array([(other.last - other.at(share)) / unit for other in ahead])
    usual = float(np.median(brought)) if len(ahead) else 0.0
    brought = np.clip(brought - usual, -CLIP, CLIP)
    known = np.stack([np.ones_like(start), start - 0.5], axis=1)
    precision = np.diag([DRIFT_COUNT, SLOPE_COUNT]) + (known * way[:, None]).T @ known
    drift = np.linalg.solve(precision, (known * way[:, None]).T @ brought)
    freedom = SPREAD_COUNT + float(way.sum())
    squares = SPREAD_COUNT * SPREAD**2 * (1 - share) + float(way @ brought**2 - drift @ precision @ drift)
    target = ((min(rivals) if rivals else best) - best) / unit - ambition

    def chance(loss: float, spread: float) -> float:
        at = np.array([1.0, min(loss, CLIP) - 0.5])
        variance = max(squares, 1e-12) / freedom * (1 + at @ np.linalg.solve(precision, at)) + spread**2
        return float(stdtr(freedom, (target - loss - usual - float(at @ drift)) / math.sqrt(variance)))

    # The best of `count` normal deviates is about this many deviations from the middle.
    deviations = max(float(ndtri(1 - 0.7 / count)), 0.5)
    return chance((mine.last - best) / unit, 0.0), chance(1.0, 1 / deviations)


def curve_of(trial: FrozenTrial, sign: float, whole: int) -> Curve | None:
    """The trial's reports up to the first that is not finite, `sign` times their values being losses.

    `whole` is the last step of a schedule where the trial did not record its own. A complete trial's value is its
    end, whenever that came (early stopping), and all there is where it reported nothing. None where there is nothing.
    """
    steps = sorted(trial.intermediate_values)
    losses = [sign * trial.intermediate_values[step] for step in steps]
    finite = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    steps, losses = steps[:finite], losses[:finite]
    if trial.state == TrialState.COMPLETE:
        if not steps:
            steps, losses = [1], [0.0]
        losses[-1] = sign * float(trial.value or 0.0)
        rungs = steps[-1]
    else:
        rungs = max(rungs_of(trial, whole), steps[-1] if steps else 1)
    if not steps:
        return None
    return Curve(np.array(steps) / rungs, np.array(losses), trial.state in (TrialState.PRUNED, TrialState.FAIL))


def rungs_of(trial: FrozenTrial, whole: int) -> int:
    """The last step of the trial's own schedule, or `whole` where it did not record it."""
    return int(trial.user_attrs.get(RUNGS, whole))


def furthest_step(trials: Sequence[FrozenTrial]) -> int:
    """The furthest step that any trial reported: that of a whole schedule where trials do not record theirs."""
    return max((trial.last_step or 1 for trial in trials), default=1)


def standings(curves: Sequence[Curve | None]) -> Array:
    """The share of the others that were better than each, two being compared at the furthest share that both reached.

    0 is best; a trial without a curve stands last. 500 trials take a few milliseconds.
    """
    found = np.full(len(curves), 1.0)
    there = [place for place, curve in enumerate(curves) if curve is not None]
    known = [curve for curve in curves if curve is not None]
    if not known:
        return found
    losses = np.array([np.interp(GRID, curve.shares, curve.losses) for curve in known])
    # One that stopped before the first share of the grid is held against the others there.
    reached = np.maximum(np.searchsorted(GRID, [curve.reach + 1e-9 for curve in known]) - 1, 0)
    common = np.minimum.outer(reached, reached)
    rows = np.arange(len(known))
    own, other = losses[rows[:, None], common], losses[rows[None, :], common]
    found[there] = (other < own).mean(axis=1) + 0.5 * (other == own).mean(axis=1) - 0.5 / len(known)
    return found
