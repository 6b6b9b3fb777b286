"""Encodes configurations in the unit cube, samples candidates there and decodes them to parameters."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

Array = np.ndarray
Number = FloatDistribution | IntDistribution

UNIFORM, NEIGHBORS = 256, 16  # candidates: in the full space, and around each of the best configurations
P_NUMBER, P_CATEGORY = 0.4, 0.3  # probabilities that a neighbor's number or category differs
NEAR, NEARER = 0.2, 0.05  # standard deviations of a neighbor's numbers


class UnitCube:
    """The union of the search spaces of `trials`, and their configurations as units.

    A number's unit is its position in its range, from 0 to 1, and a category's the middle of its share of that; NaN is
    an inactive parameter. The category that activates a parameter is inferred from the trials.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self.space = _joint_space(trials)
        widths = [len(k.choices) if isinstance(k, CategoricalDistribution) else 1 for k in self.space.values()]
        self.groups = np.repeat(np.arange(len(widths)), widths)  # (features,): the parameter that a feature encodes
        self._categorical = np.array([isinstance(k, CategoricalDistribution) for k in self.space.values()], dtype=bool)
        grids = {column: _grid(kind) for column, kind in enumerate(self.space.values())}
        self._grids = {column: grid for column, grid in grids.items() if grid is not None}
        columns = [_to_units(kind, [trial.params.get(name) for trial in trials]) for name, kind in self.space.items()]
        self.units = np.array(columns).reshape(len(self.space), len(trials)).T  # (trials, parameters)
        self._conditions = self._infer_conditions()

    def _infer_conditions(self) -> list[tuple[int, int, Array]]:
        """Return (parameter, parent, the parent's units without it) of each condition that all trials agree on."""
        found = []
        for column in np.flatnonzero(np.isnan(self.units).any(axis=0)):
            active = ~np.isnan(self.units[:, column])
            for parent in np.flatnonzero(self._categorical):
                values = self.units[:, parent]
                with_it, without = set(values[active]), set(values[~active & ~np.isnan(values)])
                if parent != column and without and not with_it & without:
                    found.append((int(column), int(parent), np.array(sorted(without))))
        return found

    def encode(self, units: Array) -> Array:
        """Return the features (n, features) of `units` (n, parameters).

        Categories are one-hot, scaled so that two different ones are as far apart as the ends of a range.
        """
        columns = []
        for column, kind in zip(units.T, self.space.values(), strict=True):
            if isinstance(kind, CategoricalDistribution):
                number = np.nan_to_num(column * len(kind.choices), nan=-1).astype(int)
                columns += [(number == choice) / math.sqrt(2) for choice in range(len(kind.choices))]
            else:
                columns.append(np.nan_to_num(column, nan=0.5))
        return np.stack(columns, axis=1) if columns else np.zeros((len(units), 0))

    def decode(self, unit: Array) -> dict[str, Any]:
        """Return the active parameters of one configuration (parameters,)."""
        columns = zip(self.space.items(), unit, strict=True)
        return {name: _from_unit(kind, value) for (name, kind), value in columns if not math.isnan(value)}

    def sample(self, rng: np.random.RandomState, best: Array) -> Array:
        """Sample untried configurations (n, parameters): uniformly, and near the `best` ones (m, parameters)."""
        uniform = self._repair(rng.rand(UNIFORM, len(self.space)))
        return self._untried(np.concatenate([uniform, self._sample_neighbors(rng, best, NEAR)]))

    def sample_nearby(self, rng: np.random.RandomState, best: Array) -> Array:
        """Sample untried configurations (n, parameters) very near the `best` ones (m, parameters)."""
        return self._untried(self._sample_neighbors(rng, best, NEARER))

    def _sample_neighbors(self, rng: np.random.RandomState, best: Array, std: float) -> Array:
        units = np.repeat(best, NEIGHBORS, axis=0)
        fresh = rng.rand(*units.shape)
        units = np.where(np.isnan(units), fresh, units)
        changed = rng.rand(*units.shape) < np.where(self._categorical, P_CATEGORY, P_NUMBER)
        shifted = np.clip(units + std * rng.randn(*units.shape), 0, 1)
        return self._repair(np.where(changed, np.where(self._categorical, fresh, shifted), units))

    def _repair(self, units: Array) -> Array:
        """Round to the values that a trial can have, and deactivate parameters whose condition does not hold."""
        units = units.copy()
        for column, grid in self._grids.items():
            units[:, column] = grid[np.abs(units[:, column, None] - grid).argmin(axis=1)]
        for column, parent, without in self._conditions:
            units[np.isclose(units[:, parent, None], without).any(axis=1), column] = np.nan
        return units

    def _untried(self, units: Array) -> Array:
        tried = set(_keys(self.units))
        return units[np.array([key not in tried for key in _keys(units)], dtype=bool)]

    def convert(self, units: Array, other: "UnitCube") -> Array:
        """Return `units` (n, parameters) as units of another space.

        NaN stands for a parameter or category that is not in this space; a number may lie outside the other's range.
        """
        found = np.full((len(units), len(other.space)), np.nan)
        for column, (name, kind) in enumerate(other.space.items()):
            if name in self.space:
                found[:, column] = _convert(units[:, list(self.space).index(name)], self.space[name], kind)
        return found


def _joint_space(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Return the last distribution of each parameter, without those of a single value."""
    last = {name: kind for trial in trials for name, kind in trial.distributions.items()}
    return {name: kind for name, kind in last.items() if not kind.single()}


def _keys(units: Array) -> list[bytes]:
    """Return a hashable key of each row; rows that are equal up to rounding have the same."""
    return [row.tobytes() for row in np.nan_to_num(units, nan=-1).round(9) + 0.0]


def _grid(kind: BaseDistribution) -> Array | None:
    """Return the units of a parameter's values if they are few, at most 1,000 or categories; else None."""
    values: Sequence[Any] = ()
    if isinstance(kind, CategoricalDistribution):
        values = kind.choices
    elif isinstance(kind, Number) and kind.step:
        count = round((kind.high - kind.low) / kind.step) + 1
        values = [kind.low + number * kind.step for number in range(count)] if count <= 1000 else ()
    return _to_units(kind, values) if len(values) else None


def _to_units(kind: BaseDistribution, values: Sequence[Any]) -> Array:
    """Return the units of a parameter's values; NaN for None and for an unknown category."""
    if isinstance(kind, CategoricalDistribution):
        units = {choice: (number + 0.5) / len(kind.choices) for number, choice in enumerate(kind.choices)}
        return np.array([units.get(value, math.nan) for value in values])
    assert isinstance(kind, Number)
    low, high = _bounds(kind)
    numbers = np.array(values, dtype=float)  # None becomes NaN
    scaled: Array = ((np.log(numbers) if kind.log else numbers) - low) / (high - low)
    return scaled


def _from_unit(kind: BaseDistribution, unit: float) -> Any:
    """Return the value of a parameter that has this unit."""
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[min(int(unit * len(kind.choices)), len(kind.choices) - 1)]
    assert isinstance(kind, Number)
    low, high = _bounds(kind)
    value = low + unit * (high - low)
    value = min(max(math.exp(value) if kind.log else value, kind.low), kind.high)
    if kind.step:
        value = kind.low + kind.step * round((value - kind.low) / kind.step)
    return int(value) if isinstance(kind, IntDistribution) else float(value)


def _bounds(kind: Number) -> tuple[float, float]:
    """Return the bounds of a range, in logarithms if it is logarithmic."""
    return (math.log(kind.low), math.log(kind.high)) if kind.log else (float(kind.low), float(kind.high))


def _convert(units: Array, kind: BaseDistribution, other: BaseDistribution) -> Array:
    """Return units of one distribution as those of another; NaN if one is categorical and the other is not."""
    if isinstance(kind, CategoricalDistribution) != isinstance(other, CategoricalDistribution):
        return np.full(len(units), np.nan)
    if isinstance(kind, CategoricalDistribution):
        choices = np.append(_to_units(other, kind.choices), np.nan)
        converted: Array = choices[np.nan_to_num(units * len(kind.choices), nan=len(kind.choices)).astype(int)]
        return converted
    assert isinstance(kind, Number) and isinstance(other, Number)
    low, high = _bounds(kind)
    values = low + units * (high - low)
    if kind.log != other.log:
        values = np.exp(values) if kind.log else np.log(np.maximum(values, 1e-12))
    low, high = _bounds(other)
    scaled: Array = (values - low) / (high - low)
    return scaled
