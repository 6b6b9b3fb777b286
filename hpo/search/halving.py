"""hpo's default pruner: asynchronous successive halving over shares of each trial's own schedule."""

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from hpo.core.direction import loss_sign
from hpo.search.curves import Curve, curve_of, furthest_step
from hpo.storage.records import direction_of
from hpo.storage.transactions import INFRASTRUCTURE

# Trials that must have come as far before one is stopped: with fewer, who is best of them is chance, and one that
# learns fast early on stops all who follow (mean final regret on recorded fine-tuning, with 1 and 4 workers, 0.08 and
# 0.09; without this 0.10 and 0.12). At every look, not the first alone: a search begins with a head alone, which learns
# fast and would stop the whole trainings after it at their second (`benchmarks/data/README.md`).
FEW = 4


class HalvingPruner(optuna.pruners.BasePruner):
    """Stops a trial at `min_share` of its schedule, and at each `reduction_factor` times as much, unless it is good.

    Good is who is among the best `1 / reduction_factor` of all that came so far, running, stopped and finished ones,
    each by its value at that share of its own schedule (asynchronous successive halving: Li et al., 2020); the first
    three go on. Where trials differ in epochs and batch size, values at the same share tell most of how they rank in
    the end (`benchmarks/step_meaning.py`).
    """

    def __init__(self, min_share: float = 0.0625, reduction_factor: int = 2) -> None:
        if not 0 < min_share < 1:
            raise ValueError(f"min_share is {min_share}, and must be above 0 and below 1")
        if reduction_factor < 2:
            raise ValueError(f"reduction_factor is {reduction_factor}, and must be 2 or more")
        self._min_share = min_share
        self._factor = reduction_factor

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop `trial` at its last report."""
        known = [t for t in study.get_trials(deepcopy=False) if INFRASTRUCTURE not in t.user_attrs]
        whole = furthest_step(known)
        sign = loss_sign(direction_of(study))
        own = curve_of(trial, sign, whole)
        if own is None:
            return bool(trial.intermediate_values)  # what it reported is not finite
        share = self._reached(own)
        if share is None:
            return False
        others = [curve_of(t, sign, whole) for t in known if t.number != trial.number]
        losses = [_loss_at(curve, share) for curve in others if curve is not None and curve.reach >= share - 1e-9]
        if len(losses) + 1 < FEW:
            return False
        good = max((len(losses) + 1) // self._factor, 1)
        return sum(loss < _loss_at(own, share) for loss in losses) >= good

    def _reached(self, curve: Curve) -> float | None:
        """The share at which to compare, which the last report was the first to reach; None where there is none."""
        before = curve.shares[-2] if len(curve.shares) > 1 else 0.0
        share, found = self._min_share, None
        while share < 1 and share <= curve.reach + 1e-9:
            found = share if share > before + 1e-9 else None
            share *= self._factor
        return found


def _loss_at(curve: Curve, share: float) -> float:
    """The loss at a share of the schedule, on a straight line between reports."""
    return float(np.interp(share, curve.shares, curve.losses))
