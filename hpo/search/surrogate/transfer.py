"""What other studies tell of a study's configurations: each counts as far as it agrees with what is found here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpo.search.surrogate.gp import Process
from hpo.search.surrogate.space import Region

Array = np.ndarray

# The study's user attribute that names the studies, in the same database, which its sampler learns from.
SOURCE_STUDIES = "source_studies"
# How much all sources together count before the study has a result of its own, and how many results that is worth.
TRUST, TRUST_COUNT = 0.5, 4.0


@dataclass(frozen=True)
class Source:
    """Another study: its space, and what its trials tell of every point of it."""

    region: Region
    process: Process

    def at(self, region: Region, units: Array) -> Array:
        """The scores it expects of units of another region, (n,); near 0, the middle, far from what it knows."""
        mean, _ = self.process.at(self.region.points(region.units_in(self.region, units)))
        return mean


class Evidence:
    """What sources expect, weighed by Bayesian linear regression of the scores that were found on those they expect.

    So it is ranks that have to agree, not values; a source that misleads soon counts nothing, and what it gets wrong in
    part is the study's own process to learn, which starts from here (a process of residuals: Golovin et al., 2017;
    weights by agreement of ranks: Feurer et al., 2018).
    """

    def __init__(self, sources: Sequence[Source], region: Region, units: Array, scores: Array, noise: Array) -> None:
        """`scores` (n,), each with its `noise`'s variance, were found at `units` (n, parameters) of `region`."""
        self._sources, self._region = sources, region
        told = self._told(units)
        self._centre = told.mean(axis=0) if len(told) else np.zeros(len(sources))
        counted = (told - self._centre) / (1 + noise)[:, None]
        precision = TRUST_COUNT * np.eye(len(sources)) + counted.T @ (told - self._centre)
        believed = np.full(len(sources), TRUST_COUNT * TRUST / max(len(sources), 1))
        self.weights = np.maximum(np.linalg.solve(precision, believed + counted.T @ scores), 0)

    def at(self, units: Array) -> Array:
        """The scores to expect of units before the study's own trials are asked, (n,)."""
        expected: Array = (self._told(units) - self._centre) @ self.weights
        return expected

    def _told(self, units: Array) -> Array:
        told = [source.at(self._region, units) for source in self._sources]
        return np.array(told).reshape(len(self._sources), len(units)).T
