"""The cost of trainings, and ridge regression."""

from typing import Any

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.search.surrogate.cost import PENALTY, CostModel, RidgeRegression
from hpo.storage.records.trial import CurvePoint, TrialRecord


def test_ridge_regression_equals_the_closed_form_around_the_mean() -> None:
    rng = np.random.default_rng(0)
    points, values, new = rng.random((8, 3)), rng.random(8), rng.random((2, 3))
    centered = points - points.mean(axis=0)
    slopes = np.linalg.inv(centered.T @ centered + PENALTY * np.eye(3)) @ centered.T @ (values - values.mean())
    expected = values.mean() + (new - points.mean(axis=0)) @ slopes
    assert RidgeRegression(points, values).predict(new) == pytest.approx(expected)


def test_ridge_regression_without_observations_predicts_zero() -> None:
    assert RidgeRegression(np.zeros((0, 2)), np.zeros(0)).predict(np.ones((3, 2))).tolist() == [0.0, 0.0, 0.0]


def trained(seconds: float, reports: int, first: int = 1, **changed: Any) -> FrozenTrial:
    steps = range(first, first + reports)
    return create_trial(
        **({"state": TrialState.PRUNED} | changed),
        intermediate_values=dict.fromkeys(steps, 0.5),
        **TrialRecord(
            rungs=8, curve=(CurvePoint(step=steps[-1], epoch=1, train_loss=0, seconds=seconds),)
        ).attributes(),
    )


def test_costs_are_extrapolated_to_full_trainings() -> None:
    """Twice the seconds at the right end, by trials that stopped at different shares of their schedules."""
    trials = [trained(1.0, 8), trained(0.25, 2), trained(2.0, 8), trained(1.0, 4)]
    points = np.array([[0.0], [0.0], [1.0], [1.0]])
    costs = CostModel(trials, points, np.array([1.0, 0.25, 1.0, 0.5]), np.ones(4, dtype=bool), 8)
    cheap, dear = costs.training_cost(np.array([[0.0], [1.0]]))
    assert cheap < 1 < dear and cheap * dear == pytest.approx(1.0) and 1.5 < dear / cheap < 2
    assert costs.first_report_share(points) == pytest.approx([1 / 8] * 4)


def test_untimed_trials_leave_the_cost_at_one() -> None:
    trials = [create_trial(state=TrialState.RUNNING), trained(1.0, 8)]
    costs = CostModel(trials, np.array([[0.0], [1.0]]), np.array([0.0, 1.0]), np.array([True, False]), 8)
    assert costs.training_cost(np.array([[0.3]])).tolist() == [1.0]
