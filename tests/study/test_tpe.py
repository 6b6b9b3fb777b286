"""hpo's sampler: Optuna's contract of a sampler, and what it adds to TPE."""

from collections.abc import Callable

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import TrialState, create_trial

from hpo.study.rules import FAILURE, INFRASTRUCTURE, RUNGS
from hpo.study.sampler import build_sampler
from hpo.study.tpe import CurveTPESampler

UNIT = {"x": FloatDistribution(0, 1)}


class TestSampler(BasicSamplerTestCase, RelativeSamplerTestCase):
    """As `build_sampler` makes it: by groups where the space has conditions."""

    @pytest.fixture(params=[False, True], ids=["joint", "grouped"])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: build_sampler({"name": "curve_tpe", "n_startup_trials": 2}, conditional=request.param, seed=0)


def test_no_configuration_twice() -> None:
    space = {"model": CategoricalDistribution(["a", "b", "c"]), "size": CategoricalDistribution([1, 2, 3, 4])}
    study = optuna.create_study(sampler=CurveTPESampler(seed=1, multivariate=True))
    for number in range(12):
        trial = study.ask(space)
        if number % 3:
            study.tell(trial, float(trial.params["size"]))  # the others are still running
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 12
    study.ask(space)  # all were tried: one of them again


def _proposed(study: optuna.Study, count: int = 40) -> list[float]:
    return [study.sampler.sample_relative(study, study.ask(), UNIT)["x"] for _ in range(count)]


@pytest.mark.parametrize("reason", [FAILURE, INFRASTRUCTURE])
def test_a_region_that_fails_is_left_unless_the_infrastructure_failed(reason: str) -> None:
    study = optuna.create_study(sampler=CurveTPESampler(seed=0, multivariate=True))
    for number in range(12):  # better to the right, as far as it goes
        study.add_trial(create_trial(params={"x": number / 20}, distributions=UNIT, value=-number))
    for number in range(12):
        failed = {"params": {"x": 0.6 + number / 30}, "distributions": UNIT, "state": TrialState.FAIL}
        study.add_trial(create_trial(**failed, user_attrs={FAILURE: "Diverged", reason: "why"}))  # type: ignore[arg-type]
    revisited = sum(x > 0.6 for x in _proposed(study))
    assert (revisited > 10) == (reason == INFRASTRUCTURE), revisited


def test_a_stopped_trial_counts_by_where_it_stood_not_by_how_far_it_came() -> None:
    study = optuna.create_study(sampler=CurveTPESampler(seed=0, multivariate=True))
    plain = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    for number in range(20):  # on the right they were good, and all stopped sooner than the bad ones on the left
        good = number % 2
        stopped = create_trial(
            params={"x": (0.7 if good else 0.0) + number / 100},
            distributions=UNIT,
            state=TrialState.PRUNED,
            intermediate_values={1: 0.2, 2: 0.2} if good else dict.fromkeys(range(1, 5), 0.9),
            user_attrs={RUNGS: 10},
        )
        study.add_trial(stopped)
        plain.add_trial(stopped)
    assert sum(x > 0.5 for x in _proposed(study)) > 24 > 16 > sum(x > 0.5 for x in _proposed(plain))
