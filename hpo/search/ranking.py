"""A ranking of the candidates before the first trial: what it changes in a search, and how well it agreed."""

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
ODDS = 0.5  # of a model against the one ranked before it, before there is evidence
TRIALS_EACH = 4  # ended trials for each model after which the ranking no longer counts
PROPOSALS = 4  # of the sampler, of which one is taken


@dataclass(frozen=True)
class RankedModel:
    """A candidate: its size, its score (higher is better; None where it has none, as `reason` says), what that took."""

    model: str
    parameters: int
    layers: int
    score: float | None
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Ranking:
    """The candidates, the best first; `rows` is how many rows the scores are of."""

    rows: int
    models: tuple[RankedModel, ...]

    @property
    def order(self) -> list[str]:
        return [ranked.model for ranked in self.models]

    def to_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "models": [asdict(ranked) for ranked in self.models]}


def ranking_of(study: Study) -> Ranking | None:
    """The ranking that a study was begun with."""
    recorded = study.user_attrs.get(RANKING)
    if not recorded:
        return None
    return Ranking(recorded["rows"], tuple(RankedModel(**ranked) for ranked in recorded["models"]))


def best_first(models: Sequence[RankedModel]) -> tuple[RankedModel, ...]:
    """Ranked by score. One without a score stands in the middle: nothing speaks for it, and nothing against it."""
    scored = sorted((m for m in models if m.score is not None), key=lambda m: -(m.score or 0.0))
    middle = len(scored) // 2
    return (*scored[:middle], *(m for m in models if m.score is None), *scored[middle:])


class RankedSampler(BaseSampler):
    """Another sampler, whose choice of a model leans to those that ranked high while there is little evidence.

    Of a few whole proposals of the sampler one is taken, by the odds of its model, so that parameters stay suited to
    it. With each trial that ended the odds come nearer to even ones; after `TRIALS_EACH` a model they are.
    """

    def __init__(self, sampler: BaseSampler, order: Sequence[str], seed: int) -> None:
        self.sampler = sampler
        self._odds = {model: ODDS**place for place, model in enumerate(order)}
        self._random = np.random.default_rng(seed)

    def _chance(self, study: Study, model: Any) -> float:
        """How likely a proposal with `model` is taken: 1 for the best ranked, and in the end for all."""
        over = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        ended = len(study.get_trials(deepcopy=False, states=over))
        fade = max(0.0, 1 - ended / (TRIALS_EACH * len(self._odds)))
        return float(self._odds.get(model, 1.0) ** fade)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        for _ in range(PROPOSALS):
            proposed = self.sampler.sample_relative(study, trial, search_space)
            if "model" not in proposed or self._random.random() < self._chance(study, proposed["model"]):
                break
        return proposed

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        for _ in range(PROPOSALS):
            proposed = self.sampler.sample_independent(study, trial, name, distribution)
            if name != "model" or self._random.random() < self._chance(study, proposed):
                break
        return proposed

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._random = np.random.default_rng()
        self.sampler.reseed_rng()


def agreement(study: Study) -> dict[str, Any] | None:
    """How well a study's ranking agreed with what its trials found; None without a ranking.

    `models` holds each ranked model with its `score` and `best` complete trial's value (None: it has none), `tau` is
    Kendall's rank correlation (tau-b) of the two over those that have both, None for fewer than two.
    """
    ranking = ranking_of(study)
    if ranking is None:
        return None
    best = _best_of_each(study)
    both = [(m.score, best[m.model]) for m in ranking.models if m.score is not None and m.model in best]
    sign = loss_sign(direction_of(study))
    tau = rank_correlation([score for score, _ in both], [-sign * value for _, value in both])
    models = [
        {"model": m.model, "score": m.score, "best": best.get(m.model), "reason": m.reason} for m in ranking.models
    ]
    return {"rows": ranking.rows, "models": models, "tau": tau}


def _best_of_each(study: Study) -> Mapping[str, float]:
    """The best value of each model's complete trials."""
    better = max if higher_is_better(direction_of(study)) else min
    found: dict[str, float] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        model = trial.params.get("model")
        if model is not None and trial.value is not None:
            found[model] = better(found.get(model, trial.value), trial.value)
    return found


def rank_correlation(scores: Sequence[float], values: Sequence[float]) -> float | None:
    """Kendall's tau-b: 1 for the same order, -1 for the reverse; None where it says nothing."""
    from scipy.stats import kendalltau

    if len(set(scores)) < 2 or len(set(values)) < 2:
        return None
    return float(kendalltau(scores, values).statistic)
