"""Transferability scores agree with direct computations."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from benchmarks.transfer_scores import log_maximum_evidence
from hpo.training.ranking.transferability import FOLDS, PENALTIES, _ridge, probe, target_columns, transferability


def test_labels_are_encoded_as_columns() -> None:
    assert target_columns(np.array([3, 1, 3])).tolist() == [[0, 1], [1, 0], [0, 1]]
    assert target_columns(np.array([0.5, 2.0])).tolist() == [[0.5], [2.0]]
    assert target_columns(np.array([[1.0, 0.0], [1.0, 1.0]])).tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("shape", [(40, 6), (12, 30)])
def test_ridge_agrees_with_the_normal_equations(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x_train, y_train, x_test = rng.normal(size=shape), rng.normal(size=(shape[0], 3)), rng.normal(size=(5, shape[1]))
    for penalty, predicted in zip(PENALTIES, _ridge(x_train, y_train, x_test), strict=True):
        weights = np.linalg.solve(x_train.T @ x_train + penalty * shape[0] * np.eye(shape[1]), x_train.T @ y_train)
        assert np.allclose(predicted, x_test @ weights, atol=1e-8)


def test_predictive_features_score_high_and_noise_does_not() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    predictive = np.eye(4)[labels] @ rng.normal(size=(4, 20)) + 0.3 * rng.normal(size=(400, 20))
    noisy = predictive + 2 * rng.normal(size=predictive.shape)
    noise, rows, targets = rng.normal(size=(400, 300)), np.arange(400), target_columns(labels)
    best, middle, worst = (probe(features, targets, rows) for features in (predictive, noisy, noise))
    assert 0.8 < best <= 1 and 0.1 < middle < best - 0.1
    assert abs(worst) < 0.05  # never far below 0: a large penalty predicts the mean
    numbers = (predictive @ rng.normal(size=20))[:, None]
    assert probe(predictive, numbers, rows) > 0.99


def test_rows_of_one_input_share_a_fold() -> None:
    """With ten copies of each input in different folds, a probe would memorize noise."""
    rng = np.random.default_rng(1)
    states, labels = rng.normal(size=(60, 40)), rng.integers(0, 2, 60)
    copies = np.repeat(np.arange(60), 10)
    targets = target_columns(labels[copies])
    assert probe(states[copies], targets, copies) < 0.1
    assert probe(states[copies], targets, np.arange(600)) > 0.5


def test_few_rows_and_layers_of_different_width_are_scored() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 1] * (FOLDS // 2) + [0])
    layers = [rng.normal(size=(len(labels), width)).astype(np.float32) for width in (8, 16)]
    assert np.isfinite(transferability(layers, labels, np.arange(len(labels))))
    assert transferability(layers, np.zeros(len(labels), np.int64), np.arange(len(labels))) == 0.0


def test_log_maximum_evidence_is_the_maximum_of_the_marginal_likelihood() -> None:
    """The marginal likelihood has covariance I / beta + X X' / alpha (You et al., 2021)."""
    rng = np.random.default_rng(0)
    for rows, width in ((40, 5), (60, 20)):
        states = rng.normal(size=(rows, width))
        targets = states @ rng.normal(size=(width, 2)) + rng.normal(size=(rows, 2)) * [0.5, 2.0]

        def negative(logs: np.ndarray, column: np.ndarray, states: np.ndarray = states) -> float:
            covariance = np.eye(len(states)) / np.exp(logs[1]) + states @ states.T / np.exp(logs[0])
            return -float(multivariate_normal(cov=covariance).logpdf(column)) / len(states)

        best = [
            minimize(negative, [0.0, 0.0], args=(column,), method="Nelder-Mead", bounds=[(-9, 9)] * 2)
            for column in targets.T
        ]
        assert all(one.success for one in best)
        assert log_maximum_evidence(states, targets) == pytest.approx(-np.mean([one.fun for one in best]), abs=1e-4)
