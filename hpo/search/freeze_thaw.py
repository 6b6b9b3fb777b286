"""The default sampler: it samples the configuration with the highest expected improvement per unit cost."""

from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from hpo.search.surrogate.acquisition import FEW, outlook_of, sources_of
from hpo.storage.optuna_internals import cached_trials


class FreezeThawSampler(BaseSampler):
    """Proposes what is worth the highest price of compute: expected improvement and what a look tells, by its cost.

    Learns from trials of every state; none is proposed twice while there are others. The first `n_startup_trials` are
    random, unless the study names others as its evidence (`hpo.search.surrogate.transfer`), and later a share of
    them, as in SMAC (Hutter et al., 2011): a model that is sure of a region that is not the best would stay there
    (mean final regret on recorded tweet_emotion, with 1 and 4 workers, 0.24 without random ones, 0.16 and 0.20 with a
    fifth).
    Among 10, 100 and 1,000 trials a suggestion takes 12, 22 and 56 ms (`benchmarks/suggestion_time.py`).
    """

    def __init__(self, seed: int | None = None, n_startup_trials: int = FEW, random_share: float = 0.2) -> None:
        if not 0 <= random_share <= 1:
            raise ValueError(f"random_share is {random_share}, and must be from 0 to 1")
        self._startup = n_startup_trials
        self._random_share = random_share
        self._random = RandomSampler(seed)
        self._rng = np.random.RandomState(seed)

    def reseed_rng(self) -> None:
        self._random.reseed_rng()
        self._rng = np.random.RandomState()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        others = _others(study, trial, use_cache=True)
        return {name: kind for t in others for name, kind in t.distributions.items() if not kind.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        others = _others(study, trial, use_cache=True)  # as they were read for the space: once for a trial
        seen = sum(bool(t.intermediate_values) or t.state.is_finished() for t in others)
        if not search_space or (seen < self._startup and not sources_of(study)):
            return {}
        outlook = outlook_of(study, others)
        drawn = self._rng.rand() < self._random_share
        unit = outlook.any_new(self._rng) if drawn else outlook.best_new(self._rng)
        found = {} if unit is None else outlook.region.params(unit)
        return {name: value for name, value in found.items() if name in search_space}  # some may be fixed by others

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def _others(study: optuna.Study, trial: FrozenTrial, use_cache: bool = False) -> list[FrozenTrial]:
    """The other trials; with `use_cache` as they were when `trial` was asked for (Optuna's own cache of an `ask`)."""
    return [t for t in cached_trials(study, use_cache) if t.number != trial.number]
