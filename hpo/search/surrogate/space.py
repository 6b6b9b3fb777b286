"""The search space as coordinates in the unit cube: of trials, of candidates, and back to parameters."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

Array = np.ndarray
Number = FloatDistribution | IntDistribution

ANYWHERE, AROUND = 256, 16  # candidates: in the whole space, and around each of the best few
MOVED, REDRAWN = 0.4, 0.3  # the chances that a number moves, and that a choice is drawn again


class Region:
    """The parameters that any trial had, as units: a number's place in its range, a choice's in its list.

    NaN where a parameter has no part. Which choice that hangs on is read from the trials.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        found = {name: kind for trial in trials for name, kind in trial.distributions.items()}
        self.space = {name: kind for name, kind in found.items() if not kind.single()}
        widths = [len(k.choices) if isinstance(k, CategoricalDistribution) else 1 for k in self.space.values()]
        self.groups = np.repeat(np.arange(len(widths)), widths)  # which parameter a coordinate belongs to
        self._choices = np.array([isinstance(k, CategoricalDistribution) for k in self.space.values()], dtype=bool)
        levels = {column: _levels(kind) for column, kind in enumerate(self.space.values())}
        self._levels = {column: places for column, places in levels.items() if places is not None}
        columns = [_places(kind, [trial.params.get(name) for trial in trials]) for name, kind in self.space.items()]
        self.units = np.array(columns).reshape(len(self.space), len(trials)).T
        self._absent = self._conditions()

    def _conditions(self) -> list[tuple[int, int, Array]]:
        """(parameter, choice it hangs on, places of that choice without it), as far as all trials agree on it."""
        found = []
        for column in np.flatnonzero(np.isnan(self.units).any(axis=0)):
            there = ~np.isnan(self.units[:, column])
            for parent in np.flatnonzero(self._choices):
                values = self.units[:, parent]
                with_it, without = set(values[there]), set(values[~there & ~np.isnan(values)])
                if parent != column and without and not with_it & without:
                    found.append((int(column), int(parent), np.array(sorted(without))))
        return found

    def points(self, units: Array) -> Array:
        """The coordinates (n, coordinates) of units: choices that differ are as far apart as a range's two ends."""
        columns = []
        for column, kind in zip(units.T, self.space.values(), strict=True):
            if isinstance(kind, CategoricalDistribution):
                number = np.nan_to_num(column * len(kind.choices), nan=-1).astype(int)
                columns += [(number == choice) / math.sqrt(2) for choice in range(len(kind.choices))]
            else:
                columns.append(np.nan_to_num(column, nan=0.5))
        return np.stack(columns, axis=1) if columns else np.zeros((len(units), 0))

    def candidates(self, rng: np.random.RandomState, best: Array) -> Array:
        """Units of configurations that were not tried yet: anywhere, and near the `best` ones."""
        anywhere = self._carried_out(rng.rand(ANYWHERE, len(self.space)))
        return self._untried(np.concatenate([anywhere, self._moved(rng, best, 0.2)]))

    def nearby(self, rng: np.random.RandomState, best: Array) -> Array:
        """Those that are very near."""
        return self._untried(self._moved(rng, best, 0.05))

    def _moved(self, rng: np.random.RandomState, best: Array, far: float) -> Array:
        units = np.repeat(best, AROUND, axis=0)
        fresh = rng.rand(*units.shape)
        units = np.where(np.isnan(units), fresh, units)
        changed = rng.rand(*units.shape) < np.where(self._choices, REDRAWN, MOVED)
        shifted = np.clip(units + far * rng.randn(*units.shape), 0, 1)
        return self._carried_out(np.where(changed, np.where(self._choices, fresh, shifted), units))

    def _carried_out(self, units: Array) -> Array:
        """Units as a trial of them would have them."""
        units = units.copy()
        for column, places in self._levels.items():
            units[:, column] = places[np.abs(units[:, column, None] - places).argmin(axis=1)]
        for column, parent, without in self._absent:
            units[np.isclose(units[:, parent, None], without).any(axis=1), column] = np.nan
        return units

    def _untried(self, units: Array) -> Array:
        tried = set(_keys(self.units))
        return units[np.array([key not in tried for key in _keys(units)], dtype=bool)]

    def units_in(self, other: "Region", units: Array) -> Array:
        """The same configurations as units of another space: NaN where that has no such parameter or choice."""
        found = np.full((len(units), len(other.space)), np.nan)
        for place, (name, kind) in enumerate(other.space.items()):
            if name in self.space:
                found[:, place] = _moved_to(kind, self.space[name], units[:, list(self.space).index(name)])
        return found

    def params(self, unit: Array) -> dict[str, Any]:
        """The parameters that one row of units stands for."""
        rows = zip(self.space.items(), unit, strict=True)
        return {name: _value(kind, place) for (name, kind), place in rows if not math.isnan(place)}


def _keys(units: Array) -> list[bytes]:
    return [row.tobytes() for row in np.nan_to_num(units, nan=-1).round(9) + 0.0]


def _levels(kind: BaseDistribution) -> Array | None:
    """The places of a parameter's values, where they are few."""
    values: Sequence[Any] = ()
    if isinstance(kind, CategoricalDistribution):
        values = kind.choices
    elif isinstance(kind, Number) and kind.step:
        count = round((kind.high - kind.low) / kind.step) + 1
        values = [kind.low + number * kind.step for number in range(count)] if count <= 1000 else ()
    return _places(kind, values) if len(values) else None


def _places(kind: BaseDistribution, values: Sequence[Any]) -> Array:
    """The units of a parameter's values; NaN for None, and for a choice that there is not."""
    if isinstance(kind, CategoricalDistribution):
        places = {choice: (number + 0.5) / len(kind.choices) for number, choice in enumerate(kind.choices)}
        return np.array([places.get(value, math.nan) for value in values])
    assert isinstance(kind, Number)
    low, high = _ends(kind)
    numbers = np.array(values, dtype=float)  # None becomes NaN
    placed: Array = ((np.log(numbers) if kind.log else numbers) - low) / (high - low)
    return placed


def _ends(kind: Number) -> tuple[float, float]:
    """The ends of a range, in logarithms where it is a logarithmic one."""
    return (math.log(kind.low), math.log(kind.high)) if kind.log else (float(kind.low), float(kind.high))


def _moved_to(kind: BaseDistribution, own: BaseDistribution, units: Array) -> Array:
    """Units of the parameter `own` as those of `kind`; a number may then lie beyond the range."""
    if isinstance(own, CategoricalDistribution) != isinstance(kind, CategoricalDistribution):
        return np.full(len(units), np.nan)
    if isinstance(own, CategoricalDistribution):
        places = np.append(_places(kind, own.choices), np.nan)
        chosen: Array = places[np.nan_to_num(units * len(own.choices), nan=len(own.choices)).astype(int)]
        return chosen
    assert isinstance(own, Number) and isinstance(kind, Number)
    low, high = _ends(own)
    values = low + units * (high - low)
    if own.log != kind.log:
        values = np.exp(values) if own.log else np.log(np.maximum(values, 1e-12))
    low, high = _ends(kind)
    moved: Array = (values - low) / (high - low)
    return moved


def _value(kind: BaseDistribution, place: float) -> Any:
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[min(int(place * len(kind.choices)), len(kind.choices) - 1)]
    assert isinstance(kind, Number)
    low, high = _ends(kind)
    value = low + place * (high - low)
    value = min(max(math.exp(value) if kind.log else value, kind.low), kind.high)
    if kind.step:
        value = kind.low + kind.step * round((value - kind.low) / kind.step)
    return int(value) if isinstance(kind, IntDistribution) else float(value)
