"""A Gaussian process with its own noise variance for each observation: small, and fast to predict with."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

Array = np.ndarray

# Priors of logarithms, each as mean and standard deviation. A long length scale means that a parameter hardly matters,
# as most do not.
LENGTH_SCALE = (0.5, 1.0)
NUGGET = (np.log(0.05), 1.0)  # the noise variance that the final value of a training still has
MAX_ITERATIONS = 25  # of the fit


@dataclass(frozen=True)
class Kernel:
    """Matérn 5/2 with a length scale for each parameter."""

    groups: Array  # (features,): the parameter that a feature encodes
    log_length_scales: Array  # (parameters,)
    log_nugget: float  # of the variance that no two points share

    def covariance(self, a: Array, b: Array) -> Array:
        """Return the covariances of `a` (n, features) and `b` (m, features), (n, m)."""
        a, b = self._scale(a), self._scale(b)
        squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
        r = np.sqrt(5) * np.sqrt(np.maximum(squares, 0))
        matern: Array = (1 + r + r**2 / 3) * np.exp(-r)
        return matern

    def _scale(self, points: Array) -> Array:
        return points / np.exp(self.log_length_scales)[self.groups]


def prior_kernel(groups: Array) -> Kernel:
    """Return the kernel at the mean of the priors."""
    return Kernel(groups, np.full(len(np.unique(groups)), LENGTH_SCALE[0]), float(NUGGET[0]))


class GaussianProcess:
    """The posterior of a Gaussian process of mean 0 and variance 1 plus the kernel's nugget.

    `points` (n, features) were observed to have `values` (n,), each with a `noise` variance (n,).
    """

    def __init__(self, kernel: Kernel, points: Array, values: Array, noise: Array) -> None:
        self.kernel = kernel
        self.points = points
        covariance = kernel.covariance(points, points) + np.diag(noise + np.exp(kernel.log_nugget))
        self._factor = np.linalg.cholesky(covariance)
        self._weights = cho_solve((self._factor, True), values)
        self._values, self._noise = values, noise

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Return the mean and the variance at `points` (m, features), (m,) each."""
        across = self.kernel.covariance(points, self.points)
        reduced = solve_triangular(self._factor, across.T, lower=True)
        return across @ self._weights, np.maximum(1 + np.exp(self.kernel.log_nugget) - (reduced**2).sum(0), 1e-6)

    def predict_observed(self) -> tuple[Array, Array]:
        """Return the mean and the variance of the observed points' values without their noise, (n,) each."""
        inverse = cho_solve((self._factor, True), np.eye(len(self._values)))
        return self._values - self._noise * self._weights, np.maximum(
            self._noise - self._noise**2 * np.diag(inverse), 1e-6
        )


def fit_kernel(kernel: Kernel, points: Array, values: Array, noise: Array) -> Kernel:
    """Return the kernel of maximum posterior probability, found by L-BFGS-B from `kernel`.

    `points` (n, features), `values` (n,) and `noise` (n,) are as in `GaussianProcess`.
    """
    differences = (points[:, None, :] - points[None, :, :]) ** 2
    squares = np.stack([differences[..., kernel.groups == g].sum(-1) for g in range(len(kernel.log_length_scales))])
    prior_mean = np.array([LENGTH_SCALE[0]] * len(squares) + [NUGGET[0]])
    prior_std = np.array([LENGTH_SCALE[1]] * len(squares) + [NUGGET[1]])

    def loss(theta: Array) -> tuple[float, Array]:
        """Return the negative log posterior and its gradient."""
        inverse = np.exp(-2 * theta[:-1])
        r = np.sqrt(5) * np.sqrt(np.tensordot(inverse, squares, 1))
        decay = np.exp(-r)
        covariance = (1 + r + r**2 / 3) * decay
        factor = cho_factor(covariance + np.diag(noise + np.exp(theta[-1])), lower=True)
        weights = cho_solve(factor, values)
        inner = cho_solve(factor, np.eye(len(values))) - np.outer(weights, weights)
        slopes = 5 / 3 * (1 + r) * decay * inner
        gradient = 0.5 * np.append(
            inverse * np.tensordot(squares, slopes, axes=([1, 2], [0, 1])), np.exp(theta[-1]) * np.trace(inner)
        )
        likelihood = 0.5 * values @ weights + np.log(np.diag(factor[0])).sum()
        deviation = (theta - prior_mean) / prior_std
        return likelihood + 0.5 * deviation @ deviation, gradient + deviation / prior_std

    start = np.append(kernel.log_length_scales, kernel.log_nugget)
    bounds = [(-3.0, 4.0)] * len(squares) + [(np.log(1e-4), 0.0)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": MAX_ITERATIONS})
    return Kernel(kernel.groups, found.x[:-1], float(found.x[-1]))
