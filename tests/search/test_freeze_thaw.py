"""The default sampler: Optuna's contract of a sampler, and what it suggests."""

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.search.freeze_thaw import FreezeThawSampler
from hpo.storage.records.trial import FAILURE, INFRASTRUCTURE, RUNGS, CurvePoint, TrialRecord

UNIT: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}


class TestSampler(BasicSamplerTestCase, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: FreezeThawSampler(seed=0, n_startup_trials=1)


def trial(curve: list[float], state: TrialState, x: float, **attributes: Any) -> FrozenTrial:
    return create_trial(
        state=state,
        value=curve[-1] if state == TrialState.COMPLETE else None,
        params={"x": x},
        distributions=UNIT,
        intermediate_values=dict(enumerate(curve, start=1)),
        user_attrs={RUNGS: 10, **attributes},
    )


def suggestions(study: optuna.Study, count: int = 12) -> list[float]:
    return [FreezeThawSampler(seed).sample_relative(study, study.ask(), UNIT)["x"] for seed in range(count)]


def test_search_without_pruner_finds_the_optimum() -> None:
    study = optuna.create_study(sampler=FreezeThawSampler(seed=0))
    for _ in range(25):
        asked = study.ask({"x": FloatDistribution(1e-4, 1, log=True), "n": IntDistribution(0, 3)})
        study.tell(asked, (asked.params["x"] - 0.03) ** 2 + asked.params["n"])
    assert study.best_params["n"] == 0 and study.best_value < 1e-3


def test_no_configuration_is_suggested_twice() -> None:
    space = {"model": CategoricalDistribution(["a", "b", "c"]), "size": IntDistribution(1, 4)}
    study = optuna.create_study(sampler=FreezeThawSampler(seed=1))
    for number in range(4):  # the first few are random
        study.add_trial(
            create_trial(params={"model": "a", "size": 1 + number}, distributions=space, value=float(number))
        )
    for number in range(8):
        asked = study.ask(space)
        if number % 3:
            study.tell(asked, float(asked.params["size"]))  # the others are still running
    assert len({tuple(t.params.values()) for t in study.trials}) == 12
    study.ask(space)  # all were tried: one of them again


def test_conditional_parameter_is_suggested_in_its_branch_only() -> None:
    study = optuna.create_study(sampler=FreezeThawSampler(seed=0))
    for _ in range(15):
        asked = study.ask()
        branch = asked.suggest_categorical("branch", ["plain", "deep"])
        depth = asked.suggest_int("depth", 1, 9) if branch == "deep" else 5
        study.tell(asked, abs(depth - 3) + asked.suggest_float("y", 0, 1))
    last = study.trials[-6:]
    assert min(t.value or 0.0 for t in last) < 1.5
    for _ in range(5):
        asked = study.ask()
        space = study.sampler.infer_relative_search_space(study, study.trials[-1])
        relative = study.sampler.sample_relative(study, study.trials[asked.number], space)
        assert ("depth" in relative) == (relative["branch"] == "deep")


@pytest.mark.parametrize("cause", [FAILURE, INFRASTRUCTURE])
def test_region_that_fails_is_avoided_unless_the_infrastructure_failed(cause: str) -> None:
    study = optuna.create_study()
    for number in range(12):  # better to the right, as far as it goes
        study.add_trial(trial([-float(number)] * 10, TrialState.COMPLETE, number / 20))
    for number in range(12):
        study.add_trial(trial([], TrialState.FAIL, 0.6 + number / 30, **{FAILURE: "Diverged", cause: "a reason"}))
    revisited = sum(x > 0.65 for x in suggestions(study))
    assert (revisited >= 6) == (cause == INFRASTRUCTURE), revisited


def test_cheap_configurations_are_preferred_among_equals() -> None:
    study = optuna.create_study()
    for number in range(20):
        complete = trial([0.5] * 10, TrialState.COMPLETE, number / 19)
        point = CurvePoint(step=10, epoch=10, train_loss=0, seconds=30.0 ** (number / 19))
        complete.system_attrs.update(TrialRecord(curve=(point,)).attributes()["system_attrs"])
        study.add_trial(complete)
    xs = suggestions(study)
    assert np.mean(xs) < 0.4, xs


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_random_share_outside_0_to_1_raises(share: float) -> None:
    with pytest.raises(ValueError, match="random_share"):
        FreezeThawSampler(random_share=share)
