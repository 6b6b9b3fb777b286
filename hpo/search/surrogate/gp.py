"""A Gaussian process over configurations, with an own noise for each observation: small, and fast to ask."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

Array = np.ndarray

# Priors of logarithms, each a mean and a deviation. A long length says that a parameter hardly matters: most do not.
LENGTH = (0.5, 1.0)
FLOOR = (np.log(0.05), 1.0)  # the noise's variance that the end of a training still has
STEPS = 25  # of the search for lengths, at most


@dataclass(frozen=True)
class Kernel:
    """Matérn 5/2 with a length for each parameter; `groups` tells which parameter a coordinate belongs to."""

    groups: Array  # (coordinates,)
    lengths: Array  # (parameters,), logarithms
    floor: float  # logarithm

    def scaled(self, points: Array) -> Array:
        return points / np.exp(self.lengths)[self.groups]

    def between(self, a: Array, b: Array) -> Array:
        """Covariances of the points `a` (n, coordinates) and `b` (m, coordinates), (n, m)."""
        a, b = self.scaled(a), self.scaled(b)
        squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
        return _matern(np.sqrt(np.maximum(squares, 0)))


def plain_kernel(groups: Array) -> Kernel:
    """The kernel before anything is known."""
    return Kernel(groups, np.full(len(np.unique(groups)), LENGTH[0]), float(FLOOR[0]))


def _matern(r: Array) -> Array:
    far = np.sqrt(5) * r
    return (1 + far + far**2 / 3) * np.exp(-far)


class Process:
    """What values (n,) at points (n, coordinates), each with its own noise, tell of all points.

    Beforehand the mean is 0, the variance 1 and, of what no neighbour shares, the kernel's floor.
    """

    def __init__(self, kernel: Kernel, points: Array, values: Array, noise: Array) -> None:
        self.kernel = kernel
        self.points = points
        self._factor = np.linalg.cholesky(kernel.between(points, points) + np.diag(noise + np.exp(kernel.floor)))
        self._weights = cho_solve((self._factor, True), values)
        self._values, self._noise = values, noise

    def at(self, points: Array) -> tuple[Array, Array]:
        """Mean and variance at `points`, (m,) each."""
        across = self.kernel.between(points, self.points)
        reduced = solve_triangular(self._factor, across.T, lower=True)
        return across @ self._weights, np.maximum(1 + np.exp(self.kernel.floor) - (reduced**2).sum(0), 1e-6)

    def at_own(self) -> tuple[Array, Array]:
        """Mean and variance of the observed ones themselves, their noise taken away."""
        inverse = cho_solve((self._factor, True), np.eye(len(self._values)))
        return self._values - self._noise * self._weights, np.maximum(
            self._noise - self._noise**2 * np.diag(inverse), 1e-6
        )


def fit(kernel: Kernel, points: Array, values: Array, noise: Array) -> Kernel:
    """The kernel most probable for the values, searched for from `kernel`."""
    coordinates = (points[:, None, :] - points[None, :, :]) ** 2
    squares = np.stack([coordinates[..., kernel.groups == g].sum(-1) for g in range(len(kernel.lengths))])
    centre = np.array([LENGTH[0]] * len(squares) + [FLOOR[0]])
    spread = np.array([LENGTH[1]] * len(squares) + [FLOOR[1]])

    def loss(theta: Array) -> tuple[float, Array]:
        inverse = np.exp(-2 * theta[:-1])
        r = np.sqrt(np.tensordot(inverse, squares, 1))
        far = np.sqrt(5) * r
        decayed = np.exp(-far)
        covariance = (1 + far + far**2 / 3) * decayed
        factor = cho_factor(covariance + np.diag(noise + np.exp(theta[-1])), lower=True)
        weights = cho_solve(factor, values)
        inner = cho_solve(factor, np.eye(len(values))) - np.outer(weights, weights)
        slopes = 5 / 3 * (1 + far) * decayed * inner
        gradient = 0.5 * np.append(
            inverse * np.tensordot(squares, slopes, axes=([1, 2], [0, 1])), np.exp(theta[-1]) * np.trace(inner)
        )
        likelihood = 0.5 * values @ weights + np.log(np.diag(factor[0])).sum()
        away = (theta - centre) / spread
        return likelihood + 0.5 * away @ away, gradient + away / spread

    start = np.append(kernel.lengths, kernel.floor)
    bounds = [(-3.0, 4.0)] * len(squares) + [(np.log(1e-4), 0.0)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS})
    return Kernel(kernel.groups, found.x[:-1], float(found.x[-1]))
