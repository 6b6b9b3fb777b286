"""Finite search spaces: their configurations, and searches that end when all were tried."""

import optuna
import pytest
from optuna.trial import TrialState

from hpo.config.space_parser import parse_search_space
from hpo.search.factory import build_sampler
from hpo.search.finite_space import MAX_CONFIGURATIONS, FiniteSpace
from hpo.search.suggest import suggest

CONDITIONAL = parse_search_space(
    {
        "learning_rate": {"choices": [1e-4, 1e-3]},
        "epochs": {"low": 2, "high": 6, "step": 2},
        "peft": ["none", "lora"],
        "lora_dropout": {"low": 0.0, "high": 0.1, "step": 0.05, "when": {"peft": ["lora"]}},
        "batch_size": 16,
    }
)


def test_conditional_configurations_are_counted_once() -> None:
    space = FiniteSpace.of(CONDITIONAL, ["a", "b"])
    assert space is not None and len(space) == 2 * 2 * 3 * (1 + 3)
    assert space.choices["lora_dropout"] == [0.0, 0.05, 0.1] and "batch_size" not in space.choices


@pytest.mark.parametrize(
    "parameters",
    [
        {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
        {"batch_size": {"low": 1, "high": MAX_CONFIGURATIONS + 1}},
        {"batch_size": {"low": 1, "high": 200}, "epochs": {"low": 1, "high": 200}},
    ],
)
def test_infinite_and_very_large_spaces_are_not_enumerated(parameters: dict[str, object]) -> None:
    assert FiniteSpace.of(parse_search_space(parameters), ["a"]) is None


def test_default_sampler_tries_every_configuration_once() -> None:
    space = FiniteSpace.of(CONDITIONAL, ["a"])
    assert space is not None
    study = optuna.create_study(sampler=build_sampler({}, True, 0, space))
    for number in range(len(space)):
        assert not space.is_exhausted(study.get_trials(deepcopy=False))
        trial = study.ask()
        suggest(trial, CONDITIONAL, ["a"])
        study.tell(trial, float(number % 5))
    assert len({tuple(sorted(trial.params.items())) for trial in study.trials}) == len(space) == 24
    assert space.is_exhausted(study.trials)


def test_queued_trials_are_not_sampled_again_and_do_not_end_the_search() -> None:
    parameters = parse_search_space({"learning_rate": [1e-4, 1e-3]})
    space = FiniteSpace.of(parameters, ["a"])
    assert space is not None
    study = optuna.create_study(sampler=build_sampler({}, False, 0, space))
    study.enqueue_trial({"model": "a", "learning_rate": 1e-4})
    assert len(space.untried(study.trials)) == 1 and not space.is_exhausted(study.trials)
    rates = []
    for _ in range(2):
        trial = study.ask()
        rates.append(suggest(trial, parameters, ["a"]).learning_rate)
        assert study.trials[-1].state in (TrialState.RUNNING, TrialState.WAITING)
    assert sorted(rates) == [1e-4, 1e-3] and space.is_exhausted(study.trials)
