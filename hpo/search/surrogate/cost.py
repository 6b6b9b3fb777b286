"""Predicts what a training costs: ridge regressions of seconds and of the first report on the configuration."""

import math
from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial

from hpo.search.curves import scheduled_rungs
from hpo.storage.records.trial import points_of

Array = np.ndarray

PENALTY = 0.3  # of the squared slopes, in observations


class RidgeRegression:
    """Ridge regression of `values` (n,) on `points` (n, features), both centered (Hoerl and Kennard, 1970)."""

    def __init__(self, points: Array, values: Array) -> None:
        self.mean = float(values.mean()) if len(values) else 0.0
        self._center = points.mean(axis=0) if len(values) else np.zeros(points.shape[1])
        centered = points - self._center
        penalized = centered.T @ centered + PENALTY * np.eye(points.shape[1])
        self._slopes = np.linalg.solve(penalized, centered.T @ (values - self.mean))

    def predict(self, points: Array) -> Array:
        """Return the predictions at `points` (m, features), (m,); 0 if nothing was observed."""
        predicted: Array = self.mean + (points - self._center) @ self._slopes
        return predicted


class CostModel:
    """The cost of full trainings and of their first reports, learned from trials in logarithms.

    `points` (trials, features) encode the trials' configurations. `progress` (trials,) is the share of its schedule
    that each one trained; only those with `timed` count for seconds. `default_rungs` is the length of the schedule of
    a trial that did not record it.
    """

    def __init__(
        self, trials: Sequence[FrozenTrial], points: Array, progress: Array, timed: Array, default_rungs: int
    ) -> None:
        seconds, first_shares = {}, {}
        for row, trial in enumerate(trials):
            curve = points_of(trial)
            if curve and progress[row] > 0 and timed[row] and curve[-1].get("seconds", 0) > 0:
                seconds[row] = math.log(curve[-1]["seconds"] / progress[row])
            if trial.intermediate_values:
                first_shares[row] = math.log(min(trial.intermediate_values) / scheduled_rungs(trial, default_rungs))
        self._seconds, self._first_shares = (
            RidgeRegression(points[list(known)], np.array(list(known.values()))) for known in (seconds, first_shares)
        )

    def training_cost(self, points: Array) -> Array:
        """Return the cost of a full training at `points` (m, features), (m,), in units of the mean training."""
        return np.exp(self._seconds.predict(points) - self._seconds.mean)

    def first_report_share(self, points: Array) -> Array:
        """Return the share of the schedule after which a training at `points` (m, features) reports first, (m,)."""
        return np.minimum(np.exp(self._first_shares.predict(points)), 1)
