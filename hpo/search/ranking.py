"""A ranking of the models before the first trial: a sampler that prefers the best ranked, and how well it agreed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from hpo.core.direction import higher_is_better, loss_sign
from hpo.storage.records import direction_of

RANKING = "ranking"  # the study's user attribute
DECAY = 0.5  # of the acceptance probability from one model to the next in the ranking, before the first trial
TRIALS_PER_MODEL = 4  # finished trials for each model after which the ranking has no influence
MAX_PROPOSALS = 4  # of the wrapped sampler for one trial; the last one is accepted


@dataclass(frozen=True)
class RankedModel:
    """A model with its parameter count, its score and the seconds that took.

    A higher score is better. It is None where the model could not be scored, for the `reason` given.
    """

    model: str
    parameters: int
    layers: int
    score: float | None
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Ranking:
    """The models, the best first, scored on `rows` rows of the training data."""

    rows: int
    models: tuple[RankedModel, ...]

    @property
    def order(self) -> list[str]:
        """The models' names, the best first."""
        return [ranked.model for ranked in self.models]

    def to_dict(self) -> dict[str, Any]:
        """Return the ranking as the study records it; `ranking_of` reads it."""
        return {"rows": self.rows, "models": [asdict(ranked) for ranked in self.models]}


def ranking_of(study: Study) -> Ranking | None:
    """Return the ranking that a study was created with; None without one."""
    recorded = study.user_attrs.get(RANKING)
    if not recorded:
        return None
    return Ranking(recorded["rows"], tuple(RankedModel(**ranked) for ranked in recorded["models"]))


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


def agreement(study: Study) -> dict[str, Any] | None:
    """Return how well a study's ranking agrees with its trials; None without a ranking.

    `rows` is that of the ranking. `models` holds each model's `score` and the value of its `best` complete trial, None
    if it has none, and the `reason` for a missing score. `tau` is the rank correlation of the two over the models that
    have both (`rank_correlation`).
    """
    ranking = ranking_of(study)
    if ranking is None:
        return None
    best = _best_values(study)
    both = [(m.score, best[m.model]) for m in ranking.models if m.score is not None and m.model in best]
    sign = loss_sign(direction_of(study))
    tau = rank_correlation([score for score, _ in both], [-sign * value for _, value in both])
    models = [
        {"model": m.model, "score": m.score, "best": best.get(m.model), "reason": m.reason} for m in ranking.models
    ]
    return {"rows": ranking.rows, "models": models, "tau": tau}


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
