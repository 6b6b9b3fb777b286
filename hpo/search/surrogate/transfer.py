"""Transfer from source studies: their predictions become the prior mean of a study's own surrogate model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpo.search.surrogate.gp import GaussianProcess
from hpo.search.surrogate.space import UnitCube

Array = np.ndarray

# The prior of the sources' weights: their sum, and how many of the study's own results the prior counts as.
PRIOR_WEIGHT, PRIOR_COUNT = 0.5, 4.0


@dataclass(frozen=True)
class SourceStudy:
    """Another study: its search space and the posterior of its scores."""

    space: UnitCube
    process: GaussianProcess

    def predict(self, space: UnitCube, units: Array) -> Array:
        """Return the mean scores (n,) at `units` (n, parameters) of another space; near 0 far from its own trials."""
        mean, _ = self.process.predict(self.space.encode(space.convert(units, self.space)))
        return mean


class TransferPrior:
    """A prior mean: a weighted sum of the predictions of source studies.

    The weights are a Bayesian linear regression of the study's own scores on the sources' predictions. Scores come
    from ranks, so that ranks have to agree and values do not; a misleading source soon has no weight. The study's own
    process models the residuals (Golovin et al., 2017; weights by agreement of ranks: Feurer et al., 2018).
    """

    def __init__(
        self, sources: Sequence[SourceStudy], space: UnitCube, units: Array, scores: Array, noise: Array
    ) -> None:
        """Fit the weights to `scores` (n,), with `noise` variances (n,), at `units` (n, parameters) of `space`."""
        self._sources, self._space = sources, space
        predictions = self._predictions(units)
        self._mean = predictions.mean(axis=0) if len(predictions) else np.zeros(len(sources))
        weighted = (predictions - self._mean) / (1 + noise)[:, None]
        precision = PRIOR_COUNT * np.eye(len(sources)) + weighted.T @ (predictions - self._mean)
        prior = np.full(len(sources), PRIOR_COUNT * PRIOR_WEIGHT / max(len(sources), 1))
        self.weights = np.maximum(np.linalg.solve(precision, prior + weighted.T @ scores), 0)

    def predict(self, units: Array) -> Array:
        """Return the prior mean of the scores at `units` (n, parameters), (n,)."""
        expected: Array = (self._predictions(units) - self._mean) @ self.weights
        return expected

    def _predictions(self, units: Array) -> Array:
        """Return the sources' predictions, (n, sources)."""
        predictions = [source.predict(self._space, units) for source in self._sources]
        return np.array(predictions).reshape(len(self._sources), len(units)).T
