"""hpo's pruner: stops a trial whose chance to end as the best is not worth what is left of its training."""

from dataclasses import replace

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from hpo.study.prognosis import Curve, curve_of, furthest_step, prospects


class ForecastPruner(optuna.pruners.BasePruner):
    """Compares with all trials that came as far in their own schedules: finished, pruned and running ones.

    A trial goes on while its chance to end better than all others by `ambition` (`prospects`), per rung that is left
    of it, is at least `bar` times that of a new trial per rung of a whole one. Where fewer than `min_trials` came as
    far, it is compared at its last rung that so many have reached, back to half of its way: of workers that begin
    together, most would otherwise see nobody.
    """

    def __init__(self, bar: float = 1.0, ambition: float = 0.5, min_trials: int = 4) -> None:
        if not bar > 0:
            raise ValueError(f"bar is {bar}, and must be above 0")
        if min_trials < 2:
            raise ValueError(f"min_trials is {min_trials}, and must be at least 2")
        self._bar = bar
        self._ambition = ambition
        self._min_trials = min_trials

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop `trial` at its last report."""
        trials = [t for t in study.get_trials(deepcopy=False) if t.intermediate_values and t.number != trial.number]
        sign = 1.0 if study.direction == StudyDirection.MINIMIZE else -1.0
        whole = furthest_step([*trials, trial])
        mine = curve_of(trial, sign, whole)
        if mine is None or mine.reach >= 1:
            return False
        curves = [curve for t in trials if (curve := curve_of(t, sign, whole)) is not None]
        compared = self._up_to_company(mine, curves)
        if compared is None:
            return False
        own, new = prospects(compared, curves, self._ambition)
        return own / (1 - mine.reach) < self._bar * new

    def _up_to_company(self, mine: Curve, others: list[Curve]) -> Curve | None:
        """The curve as far as enough others have come, too; None where that is less than half of it."""
        reached = sorted((other.reach for other in others), reverse=True)
        if len(reached) + 1 < self._min_trials:
            return None
        common = int(np.searchsorted(mine.shares, reached[self._min_trials - 2] + 1e-9))
        if common == 0 or mine.shares[common - 1] < mine.reach / 2:
            return None
        return replace(mine, shares=mine.shares[:common], losses=mine.losses[:common])
