"""The default pruner: asynchronous successive halving over shares of each trial's own schedule."""

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from hpo.core.direction import loss_sign
from hpo.search.curves import LearningCurve, learning_curve, max_reported_step
from hpo.storage.records.study import direction_of
from hpo.storage.records.trial import failed_by_infrastructure

# Trials that must have reached a rung before one is pruned there. With fewer, chance decides which is the best, and one
# that learns fast early prunes all that follow (mean final regret on recorded fine-tuning, with 1 and 4 workers, 0.08
# and 0.09; without this 0.10 and 0.12). It holds at every rung, not only at the first: a search starts with a head
# alone, which learns fast and would prune the full trainings after it at their second (`benchmarks/data/README.md`).
MIN_TRIALS = 4


class HalvingPruner(optuna.pruners.BasePruner):
    """Prunes a trial at a rung unless it is among the best `1 / reduction_factor` of the trials that reached the rung.

    The rungs are at `min_share` of a trial's own schedule and at each `reduction_factor` times as much, so at 1/16,
    1/8, 1/4 and 1/2 by default. All trials count, whether running, pruned or complete, each by its value at that share
    of its own schedule (asynchronous successive halving: Li et al., 2020); the first three are never pruned. Where
    trials differ in epochs and batch size, values at the same share predict the final ranking best
    (`benchmarks/step_meaning.py`).

    Raises `ValueError` if `min_share` is not between 0 and 1, or `reduction_factor` is below 2.
    """

    def __init__(self, min_share: float = 0.0625, reduction_factor: int = 2) -> None:
        if not 0 < min_share < 1:
            raise ValueError(f"min_share is {min_share}, and must be above 0 and below 1")
        if reduction_factor < 2:
            raise ValueError(f"reduction_factor is {reduction_factor}, and must be 2 or more")
        self._min_share = min_share
        self._factor = reduction_factor

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether to prune `trial` at its last report."""
        trials = [t for t in study.get_trials(deepcopy=False) if not failed_by_infrastructure(t)]
        rungs = max_reported_step(trials)
        sign = loss_sign(direction_of(study))
        own = learning_curve(trial, sign, rungs)
        if own is None:
            return bool(trial.intermediate_values)  # none of its reports is finite
        share = self._reached_rung(own)
        if share is None:
            return False
        others = [learning_curve(t, sign, rungs) for t in trials if t.number != trial.number]
        losses = [_loss_at(curve, share) for curve in others if curve is not None and curve.progress >= share - 1e-9]
        if len(losses) + 1 < MIN_TRIALS:
            return False
        survivors = max((len(losses) + 1) // self._factor, 1)
        return sum(loss < _loss_at(own, share) for loss in losses) >= survivors

    def _reached_rung(self, curve: LearningCurve) -> float | None:
        """Return the rung that the last report is the first to reach, as a share of the schedule; None for no rung."""
        before = curve.shares[-2] if len(curve.shares) > 1 else 0.0
        share, found = self._min_share, None
        while share < 1 and share <= curve.progress + 1e-9:
            found = share if share > before + 1e-9 else None
            share *= self._factor
        return found


def _loss_at(curve: LearningCurve, share: float) -> float:
    """Return the loss at a share of the schedule, interpolated linearly between reports."""
    return float(np.interp(share, curve.shares, curve.losses))
