"""Expected improvement per unit cost, and its maximum over candidates."""

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from hpo.search.surrogate.acquisition import expected_improvement, improvement_per_cost, sample_best, sample_random
from hpo.search.surrogate.model import SurrogateModel

ONE = np.ones(1)


def test_expected_improvement_equals_a_simulation() -> None:
    draws = np.random.default_rng(0).normal(0.4, 0.7, size=400_000)
    simulated = np.maximum(0.1 - draws, 0).mean()
    assert expected_improvement(0.1, np.array([0.4]), np.array([0.7]))[0] == pytest.approx(simulated, rel=0.01)
    assert expected_improvement(1.0, np.array([0.0]), np.array([1e-9]))[0] == pytest.approx(1.0)


def test_without_a_rest_the_rate_is_the_improvement_by_the_cost() -> None:
    rate = improvement_per_cost(ONE, 0 * ONE, ONE, 1e-3 * ONE, 2 * ONE, 0 * ONE)
    assert rate[0] == pytest.approx(expected_improvement(1.0, 0 * ONE, ONE)[0] / 2, rel=1e-2)


def test_a_first_report_that_is_cheap_and_informative_is_worth_more() -> None:
    cheap, dear = (improvement_per_cost(ONE, 0 * ONE, ONE, 0.3 * ONE, cost * ONE, ONE) for cost in (0.05, 0.5))
    uninformative = improvement_per_cost(ONE, 0 * ONE, ONE, ONE, 0.05 * ONE, ONE)
    assert cheap[0] > dear[0] and cheap[0] > uninformative[0]
    assert uninformative[0] == pytest.approx(expected_improvement(1.0, 0 * ONE, ONE)[0] / 1.05, rel=1e-6)


def model_of(values: dict[float, float]) -> SurrogateModel:
    space = {"x": FloatDistribution(0, 1)}
    trials = [create_trial(params={"x": x}, distributions=space, value=value) for x, value in values.items()]
    return SurrogateModel(trials, 1.0)


def test_best_candidate_is_near_the_best_trials() -> None:
    model = model_of({x: abs(x - 0.3) for x in np.linspace(0, 1, 12)})
    found = sample_best(model, np.random.RandomState(0))
    assert found is not None and abs(model.space.decode(found)["x"] - 0.3) < 0.1


def test_nothing_is_sampled_where_every_configuration_was_tried() -> None:
    space = {"model": CategoricalDistribution(["a", "b"])}
    tried = [create_trial(params={"model": name}, distributions=space, value=0.5) for name in "ab"]
    for sample in (sample_best, sample_random):
        assert sample(SurrogateModel(tried, 1.0), np.random.RandomState(0)) is None
        left = sample(SurrogateModel(tried[:1], 1.0), np.random.RandomState(0))
        assert left is not None and SurrogateModel(tried, 1.0).space.decode(left) == {"model": "b"}
