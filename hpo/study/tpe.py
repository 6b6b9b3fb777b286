"""hpo's sampler: Optuna's TPE that also learns from trials that failed or were stopped early, and repeats none."""

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import default_gamma
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.study.prognosis import curve_of, furthest_step, standings
from hpo.study.rules import INFRASTRUCTURE

DRAWS = 32  # of random configurations, before one is taken that was tried already
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class CurveTPESampler(TPESampler):
    """Multivariate TPE (Bergstra et al., 2011; Falkner et al., 2018) that knows more of what happened.

    - A trial that was stopped is ranked by where it stood among all when it stopped; Optuna ranks those last that
      stopped first.
    - A trial that failed is one of the bad ones. Optuna forgets it, and proposes the same region again.
    - No configuration is proposed twice, as long as a few draws find another.
    """

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        params = super().sample_relative(study, trial, search_space)
        if not search_space:
            return params
        others = [self._get_params(t, study) for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        known = {tuple(given.get(name) for name in search_space) for given in others}
        for _ in range(DRAWS):
            if params and tuple(params[name] for name in search_space) not in known:
                return params
            params = {
                name: self._random_sampler.sample_independent(study, trial, name, kind)
                for name, kind in search_space.items()
            }
        return params

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        trials = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        ended = [t for t in trials if t.state in ENDED and INFRASTRUCTURE not in t.user_attrs]
        places = _places(study, ended, trials)
        order = [ended[place] for place in np.argsort(places, kind="stable")]
        few = (self._gamma or default_gamma)(len(ended))
        below = sorted(order[:few], key=lambda t: t.number)
        running = [t for t in trials if t.state == TrialState.RUNNING]
        above = sorted([*order[few:], *running], key=lambda t: t.number)
        good = self._build_parzen_estimator(study, search_space, below, handle_below=True)
        bad = self._build_parzen_estimator(study, search_space, above, handle_below=False)
        samples = good.sample(self._rng.rng, self._n_ei_candidates)
        chosen = self._compare(samples, self._compute_acquisition_func(samples, good, bad))
        return {name: kind.to_external_repr(chosen[name]) for name, kind in search_space.items()}


def _places(study: Study, ended: list[FrozenTrial], trials: list[FrozenTrial]) -> np.ndarray:
    """Where each trial of `ended` stands among all: 0 is best. Without reports values alone tell."""
    sign = 1.0 if study.direction == StudyDirection.MINIMIZE else -1.0
    whole = furthest_step(trials)
    curves = [curve_of(t, sign, whole) for t in trials]
    place = dict(zip((t.number for t in trials), standings(curves), strict=True))
    return np.array([np.inf if t.state == TrialState.FAIL else place[t.number] for t in ended])
