"""A ranking of the models before the first trial: a sampler that prefers the best ranked, and how well it agreed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from hpo.core.direction import higher_is_better, loss_sign
from hpo.storage.records.final_model import RankedOutcome, RankingAgreement
from hpo.storage.records.study import RankedModel, StudyRecord, direction_of

DECAY = 0.5  # of the acceptance probability from one model to the next in the ranking, before the first trial
TRIALS_PER_MODEL = 4  # finished trials for each model after which the ranking has no influence
MAX_PROPOSALS = 4  # of the wrapped sampler for one trial; the last one is accepted


def best_first(models: Sequence[RankedModel]) -> tuple[RankedModel, ...]:
    """Sort models by score, the best first; those without a score go in the middle."""
    scored = sorted((m for m in models if m.score is not None), key=lambda m: -(m.score or 0.0))
    middle = len(scored) // 2
    return (*scored[:middle], *(m for m in models if m.score is None), *scored[middle:])


class RankedSampler(BaseSampler):
    """Wraps a sampler to prefer models that rank high while few trials are finished.

    It samples by rejection: a proposal of the wrapped sampler is accepted with a probability that falls with the rank
    of its model, so that the other parameters stay those that were proposed for the model. The probabilities approach
    1 with each finished trial, and reach it after `TRIALS_PER_MODEL` for each model.
    """

    def __init__(self, sampler: BaseSampler, order: Sequence[str], seed: int) -> None:
        self.sampler = sampler
        self._weights = {model: DECAY**rank for rank, model in enumerate(order)}
        self._rng = np.random.default_rng(seed)

    def _acceptance_probability(self, study: Study, model: Any) -> float:
        finished = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        count = len(study.get_trials(deepcopy=False, states=finished))
        influence = max(0.0, 1 - count / (TRIALS_PER_MODEL * len(self._weights)))
        return float(self._weights.get(model, 1.0) ** influence)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        for _ in range(MAX_PROPOSALS):
            proposed = self.sampler.sample_relative(study, trial, search_space)
            if "model" not in proposed or self._accepts(study, proposed["model"]):
                break
        return proposed

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        for _ in range(MAX_PROPOSALS):
            proposed = self.sampler.sample_independent(study, trial, name, distribution)
            if name != "model" or self._accepts(study, proposed):
                break
        return proposed

    def _accepts(self, study: Study, model: Any) -> bool:
        return bool(self._rng.random() < self._acceptance_probability(study, model))

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._rng = np.random.default_rng()
        self.sampler.reseed_rng()


def agreement(study: Study) -> RankingAgreement | None:
    """Return how well a study's ranking agrees with its trials; None without a ranking."""
    ranking = StudyRecord.of(study).ranking
    if ranking is None:
        return None
    best = _best_values(study)
    both = [(m.score, best[m.model]) for m in ranking.models if m.score is not None and m.model in best]
    sign = loss_sign(direction_of(study))
    tau = rank_correlation([score for score, _ in both], [-sign * value for _, value in both])
    models = tuple(
        RankedOutcome(model=m.model, score=m.score, best=best.get(m.model), reason=m.reason) for m in ranking.models
    )
    return RankingAgreement(rows=ranking.rows, models=models, tau=tau)


def _best_values(study: Study) -> Mapping[str, float]:
    """Return the best value of each model that has a complete trial."""
    better = max if higher_is_better(direction_of(study)) else min
    best: dict[str, float] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        model = trial.params.get("model")
        if model is not None and trial.value is not None:
            best[model] = better(best.get(model, trial.value), trial.value)
    return best


def rank_correlation(scores: Sequence[float], values: Sequence[float]) -> float | None:
    """Return Kendall's tau-b: 1 for the same order, -1 for the reverse; None if all of either are equal."""
    from scipy.stats import kendalltau

    if len(set(scores)) < 2 or len(set(values)) < 2:
        return None
    return float(kendalltau(scores, values).statistic)
