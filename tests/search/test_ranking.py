"""The influence of a ranking on a search, and its agreement with the trials."""

from collections import Counter

import optuna
import pytest
from optuna.trial import create_trial

from hpo.search.ranking import TRIALS_PER_MODEL, RankedSampler, agreement, best_first
from hpo.storage.records.study import RankedModel, Ranking, StudyRecord

MODELS = ["a", "b", "c"]


def model(name: str, score: float | None) -> RankedModel:
    reason = "" if score is not None else "it does not fit"
    return RankedModel(model=name, parameters=1000, layers=2, score=score, seconds=0.1, reason=reason)


def test_models_without_a_score_are_in_the_middle() -> None:
    ranked = best_first([model("low", 0.1), model("none", None), model("high", 0.9)])
    assert [m.model for m in ranked] == ["high", "none", "low"]
    assert [m.model for m in best_first([model("none", None)])] == ["none"]


def test_influence_of_the_ranking_fades() -> None:
    study = optuna.create_study(sampler=RankedSampler(optuna.samplers.RandomSampler(seed=1), MODELS, seed=0))
    early: Counter[str] = Counter()
    for _ in range(600):
        trial = optuna.trial.Trial(study, study._storage.create_new_trial(study._study_id))
        early[trial.suggest_categorical("model", MODELS)] += 1  # left running, so that none is finished
    assert early["a"] > 1.3 * early["b"] > 1.3 * early["c"] > 0.1 * early["a"]
    space = {"model": optuna.distributions.CategoricalDistribution(MODELS)}
    for number in range(TRIALS_PER_MODEL * len(MODELS)):
        study.add_trial(create_trial(params={"model": MODELS[number % 3]}, distributions=space, value=1.0))
    late: Counter[str] = Counter()
    for _ in range(600):
        trial = optuna.trial.Trial(study, study._storage.create_new_trial(study._study_id))
        late[trial.suggest_categorical("model", MODELS)] += 1
    assert max(late.values()) < 1.35 * min(late.values())


@pytest.mark.parametrize("kind", [optuna.samplers.RandomSampler, optuna.samplers.TPESampler])
def test_results_outweigh_the_ranking(kind: type[optuna.samplers.BaseSampler]) -> None:
    """The lowest ranked model is the only good one: the search finds it."""
    study = optuna.create_study(sampler=RankedSampler(kind(seed=0), MODELS, seed=0), direction="maximize")

    def objective(trial: optuna.Trial) -> float:
        return (trial.suggest_categorical("model", MODELS) == "c") + trial.suggest_float("x", 0, 0.1)

    study.optimize(objective, n_trials=40)
    assert study.best_params["model"] == "c"
    if kind is optuna.samplers.TPESampler:
        assert Counter(trial.params["model"] for trial in study.trials[20:])["c"] >= 10


def test_accepted_proposal_keeps_its_parameters() -> None:
    """The model is not replaced in a proposal, whose other parameters belong to it."""

    class Proposals(optuna.samplers.RandomSampler):
        count = 0

        def infer_relative_search_space(self, study: optuna.Study, trial: optuna.trial.FrozenTrial):  # type: ignore[no-untyped-def]
            floats = optuna.distributions.FloatDistribution(0, 100)
            return {"model": optuna.distributions.CategoricalDistribution(MODELS), "x": floats}

        def sample_relative(self, study, trial, search_space):  # type: ignore[no-untyped-def]
            self.count += 1
            return {"model": MODELS[-1 - self.count % 3], "x": float(MODELS.index(MODELS[-1 - self.count % 3]))}

    study = optuna.create_study(sampler=RankedSampler(Proposals(), MODELS, seed=0))
    for _ in range(50):
        trial = study.ask()
        assert MODELS.index(trial.suggest_categorical("model", MODELS)) == trial.suggest_float("x", 0, 100)


def test_agreement_compares_scores_with_the_best_value_of_each_model() -> None:
    study = optuna.create_study(direction="minimize")
    assert agreement(study) is None
    given = Ranking(rows=200, models=best_first([model("a", 0.5), model("b", 0.3), model("c", 0.1), model("d", None)]))
    StudyRecord(ranking=given).save(study)
    space = {"model": optuna.distributions.CategoricalDistribution([*MODELS, "d"])}
    for name, value in (("a", 2.0), ("a", 1.0), ("b", 1.5), ("d", 0.1)):
        study.add_trial(create_trial(params={"model": name}, distributions=space, value=value))
    found = agreement(study)
    assert found is not None and found.tau == pytest.approx(1.0)  # a is better than b; c was not tried
    assert {m.model: m.best for m in found.models} == {"a": 1.0, "b": 1.5, "c": None, "d": 0.1}
    study.add_trial(create_trial(params={"model": "c"}, distributions=space, value=0.2))
    found = agreement(study)
    assert found is not None and found.tau == pytest.approx(-1 / 3)
