"""The search space as coordinates in the unit cube: of trials, of candidates, and back to parameters."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

Array = np.ndarray

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
        rows = [[_place(kind, t.params.get(name)) for name, kind in self.space.items()] for t in trials]
        self.units = np.array(rows, dtype=float).reshape(len(trials), len(self.space))
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
    elif isinstance(kind, IntDistribution | FloatDistribution) and kind.step:
        count = round((kind.high - kind.low) / kind.step) + 1
        values = [kind.low + number * kind.step for number in range(count)] if count <= 1000 else ()
    return np.array([_place(kind, value) for value in values]) if len(values) else None


def _place(kind: BaseDistribution, value: Any) -> float:
    if isinstance(kind, CategoricalDistribution):
        return (kind.choices.index(value) + 0.5) / len(kind.choices) if value in kind.choices else math.nan
    if value is None:
        return math.nan
    assert isinstance(kind, FloatDistribution | IntDistribution)
    low, high, at = ((math.log if kind.log else float)(x) for x in (kind.low, kind.high, value))
    return (at - low) / (high - low)


def _value(kind: BaseDistribution, place: float) -> Any:
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[min(int(place * len(kind.choices)), len(kind.choices) - 1)]
    assert isinstance(kind, FloatDistribution | IntDistribution)
    low, high = ((math.log if kind.log else float)(x) for x in (kind.low, kind.high))
    value = low + place * (high - low)
    value = min(max(math.exp(value) if kind.log else value, kind.low), kind.high)
    if kind.step:
        value = kind.low + kind.step * round((value - kind.low) / kind.step)
    return int(value) if isinstance(kind, IntDistribution) else float(value)
