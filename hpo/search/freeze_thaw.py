"""The default sampler: it samples the configuration with the highest expected improvement per unit cost."""

from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from hpo.search.finite_space import FiniteSpace
from hpo.search.surrogate.acquisition import sample_best, sample_random
from hpo.search.surrogate.model import MIN_OBSERVATIONS, fit_surrogate, source_studies
from hpo.storage.optuna_internals import cached_trials


class FreezeThawSampler(BaseSampler):
    """Samples the configuration with the highest expected improvement per unit cost.

    The surrogate model learns from trials of every state, by their learning curves (freeze-thaw Bayesian optimization:
    Swersky et al., 2014), and no configuration is sampled twice while there are others. The first `n_startup_trials`
    are random, unless the study has source studies (`hpo.search.surrogate.transfer`). Of the later ones `random_share`
    are, as in SMAC (Hutter et al., 2011): a model that is confident of a wrong region would stay there (mean final
    regret on recorded tweet_emotion, with 1 and 4 workers, 0.24 without random ones, 0.16 and 0.20 with a fifth).

    A suggestion takes 12, 22 and 56 ms with 10, 100 and 1,000 trials (`benchmarks/suggestion_time.py`).

    Raises `ValueError` if `random_share` is not from 0 to 1.
    """

    def __init__(
        self,
        seed: int | None = None,
        n_startup_trials: int = MIN_OBSERVATIONS,
        random_share: float = 0.2,
        finite_space: FiniteSpace | None = None,
    ) -> None:
        """`finite_space` is the study's search space if it has finitely many configurations."""
        if not 0 <= random_share <= 1:
            raise ValueError(f"random_share is {random_share}, and must be from 0 to 1")
        self._n_startup_trials = n_startup_trials
        self._random_share = random_share
        self._finite_space = finite_space
        self._independent = RandomSampler(seed)
        self._rng = np.random.RandomState(seed)

    def reseed_rng(self) -> None:
        self._independent.reseed_rng()
        self._rng = np.random.RandomState()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if self._finite_space is not None:
            return {name: kind for name, kind in self._finite_space.distributions.items() if not kind.single()}
        others = _other_trials(study, trial)
        return {name: kind for t in others for name, kind in t.distributions.items() if not kind.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        others = _other_trials(study, trial)
        observed = sum(bool(t.intermediate_values) or t.state.is_finished() for t in others)
        if not search_space:
            return {}
        if observed < self._n_startup_trials and not source_studies(study):
            return self._sample_untried(others, search_space)
        model = fit_surrogate(study, others)
        sample = sample_random if self._rng.rand() < self._random_share else sample_best
        unit = sample(model, self._rng)
        if unit is None:
            return self._sample_untried(others, search_space)
        params = model.space.decode(unit)
        return {name: value for name, value in params.items() if name in search_space}  # others may fix some

    def _sample_untried(self, others: list[FrozenTrial], search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Sample an untried configuration of a finite space. In an infinite one every random one is untried: return {}.

        Sampled independently, 4 of the 6 trials of a space of two configurations would be duplicates.
        """
        found = None if self._finite_space is None else self._finite_space.sample(others, self._rng)
        return {name: value for name, value in (found or {}).items() if name in search_space}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._independent.sample_independent(study, trial, param_name, param_distribution)


def _other_trials(study: optuna.Study, trial: FrozenTrial) -> list[FrozenTrial]:
    """Return the other trials as Optuna cached them when `trial` was asked for: they are read once for a trial."""
    return [t for t in cached_trials(study) if t.number != trial.number]
