"""The Gaussian process against the textbook's formulas."""

import numpy as np
import pytest

from hpo.search.surrogate.gp import GaussianProcess, Kernel, fit_kernel, prior_kernel

RNG = np.random.default_rng(0)
GROUPS = np.array([0, 1, 1])
POINTS = RNG.random((6, 3))
VALUES = RNG.standard_normal(6)
NOISE = RNG.random(6) * 0.1


def test_covariance_is_matern_52_over_length_scales() -> None:
    kernel = Kernel(GROUPS, np.log([0.5, 2.0]), np.log(0.05))
    r = np.sqrt(5) * np.sqrt((((POINTS[0] - POINTS[1]) / np.array([0.5, 2.0, 2.0])) ** 2).sum())
    assert kernel.covariance(POINTS, POINTS)[0, 1] == pytest.approx((1 + r + r**2 / 3) * np.exp(-r))
    assert np.diag(kernel.covariance(POINTS, POINTS)) == pytest.approx(np.ones(6))


def test_posterior_equals_the_closed_form() -> None:
    kernel, new = prior_kernel(GROUPS), RNG.random((4, 3))
    mean, variance = GaussianProcess(kernel, POINTS, VALUES, NOISE).predict(new)
    nugget = np.exp(kernel.log_nugget)
    inverse = np.linalg.inv(kernel.covariance(POINTS, POINTS) + np.diag(NOISE + nugget))
    across = kernel.covariance(new, POINTS)
    assert mean == pytest.approx(across @ inverse @ VALUES)
    assert variance == pytest.approx(1 + nugget - (across @ inverse * across).sum(axis=1))


def test_prediction_of_observed_points_removes_their_noise() -> None:
    kernel = prior_kernel(GROUPS)
    mean, variance = GaussianProcess(kernel, POINTS, VALUES, NOISE).predict_observed()
    prior = kernel.covariance(POINTS, POINTS) + np.exp(kernel.log_nugget) * np.eye(6)
    gain = prior @ np.linalg.inv(prior + np.diag(NOISE))
    assert mean == pytest.approx(gain @ VALUES)
    assert variance == pytest.approx(np.diag(prior - gain @ prior))


def test_fit_finds_the_parameter_that_matters() -> None:
    points = RNG.random((40, 2))
    fitted = fit_kernel(prior_kernel(np.arange(2)), points, np.sin(9 * points[:, 0]), np.full(40, 1e-3))
    assert fitted.log_length_scales[0] < 0 < 1 < fitted.log_length_scales[1]


def test_process_without_observations_is_the_prior() -> None:
    kernel = prior_kernel(GROUPS)
    mean, variance = GaussianProcess(kernel, POINTS[:0], VALUES[:0], NOISE[:0]).predict(POINTS)
    assert mean.tolist() == [0.0] * 6 and variance == pytest.approx(np.full(6, 1 + np.exp(kernel.log_nugget)))
