"""The acquisition function, expected improvement per unit cost, and the configuration that maximizes it."""

import numpy as np
from scipy.special import ndtr

from hpo.search.surrogate.model import SurrogateModel

Array = np.ndarray

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
ITERATIONS = 6  # of Newton's method, which converges from below
N_BEST = 8  # trials around which candidates are sampled


def expected_improvement(best: Array | float, mean: Array, std: Array) -> Array:
    """Return the expected improvement on `best`, by minimizing, of normal values (Mockus, 1975)."""
    gap = best - mean
    z = gap / std
    improvement: Array = gap * ndtr(z) + std * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return improvement


def improvement_per_cost(
    best: Array | float, mean: Array, std: Array, std_after: Array, first_cost: Array, rest_cost: Array
) -> Array:
    """Return the expected improvement per unit cost of n trainings that may be stopped at their first report, (n,).

    The final score of a training is normal with `mean` and `std`. Its first report costs `first_cost` and leaves
    `std_after`; then the training is either stopped, or continued for `rest_cost`, where it improves on `best` or not.
    The result is the largest rate of improvement per unit cost that the first report is expected to reach: a two-stage
    Gittins index (1979).
    """
    moved = np.sqrt(np.maximum(std**2 - std_after**2, 0))
    gains = expected_improvement(
        np.asarray(best).reshape(-1, 1), mean[:, None] + moved[:, None] * NODES, std_after[:, None]
    )
    rate = gains @ WEIGHTS / (first_cost + rest_cost)
    for _ in range(ITERATIONS):
        surplus = gains - (rate * rest_cost)[:, None]
        value = np.maximum(surplus, 0) @ WEIGHTS - rate * first_cost
        slope = (surplus > 0) @ WEIGHTS * rest_cost + first_cost
        rate = rate + np.maximum(value, 0) / slope
    return rate


def sample_random(model: SurrogateModel, rng: np.random.RandomState) -> Array | None:
    """Sample an untried configuration uniformly, in units (parameters,); return None if all were tried."""
    units = model.space.sample(rng, model.space.units[:0])
    return units[0] if len(units) else None


def sample_best(model: SurrogateModel, rng: np.random.RandomState) -> Array | None:
    """Return the untried configuration of the highest acquisition value, in units (parameters,); None if there is none.

    The maximum is taken over random candidates, then over neighbors of the best of those.
    """
    units = model.space.sample(rng, model.space.units[np.argsort(model.mean)[:N_BEST]])
    if not len(units):
        return None
    values = _evaluate(model, units)
    nearby = model.space.sample_nearby(rng, units[np.argsort(-values)[: N_BEST // 2]])
    units = np.concatenate([units, nearby])
    best: Array = units[np.argmax(np.concatenate([values, _evaluate(model, nearby)]))]
    return best


def _evaluate(model: SurrogateModel, units: Array) -> Array:
    """Return the acquisition values of new trainings at `units` (n, parameters), (n,)."""
    mean, variance = model.predict(units)
    points = model.space.encode(units)
    cost, share = model.costs.training_cost(points), model.costs.first_report_share(points)
    variance_after = 1 / (1 / variance + 1 / model.noise_at(share))
    best = np.full(len(points), model.best_score())
    return improvement_per_cost(best, mean, variance**0.5, variance_after**0.5, share * cost, (1 - share) * cost)
