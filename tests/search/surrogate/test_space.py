"""The search space as a unit cube."""

from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import create_trial

from hpo.search.surrogate.space import UnitCube

SPACE: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-4, 1, log=True),
    "model": CategoricalDistribution(["a", "b", "c"]),
    "size": IntDistribution(2, 8, step=2),
    "constant": FloatDistribution(3, 3),
    "depth": IntDistribution(1, 9),
}


def cube(*configurations: dict[str, Any]) -> UnitCube:
    return UnitCube([create_trial(params=c, distributions={n: SPACE[n] for n in c}, value=0.0) for c in configurations])


CONFIGURATIONS = (
    {"rate": 0.01, "model": "b", "size": 4, "constant": 3.0, "depth": 5},
    {"rate": 1.0, "model": "a", "size": 8, "constant": 3.0},
    {"rate": 1e-4, "model": "c", "size": 2, "constant": 3.0},
)


def test_units_are_positions_in_ranges() -> None:
    space = cube(*CONFIGURATIONS)
    assert list(space.space) == ["rate", "model", "size", "depth"]
    assert space.units[0] == pytest.approx([0.5, 0.5, 1 / 3, 0.5])
    assert space.units[1] == pytest.approx([1.0, 1 / 6, 1.0, np.nan], nan_ok=True)
    for configuration, unit in zip(CONFIGURATIONS, space.units, strict=True):
        expected = {name: value for name, value in configuration.items() if name != "constant"}
        assert space.decode(unit) == pytest.approx(expected)


def test_features_of_different_categories_are_as_far_apart_as_the_ends_of_a_range() -> None:
    space = cube(*CONFIGURATIONS)
    assert space.groups.tolist() == [0, 1, 1, 1, 2, 3]
    features = space.encode(space.units)
    assert features.shape == (3, 6) and np.isfinite(features).all()
    assert np.linalg.norm(features[0, 1:4] - features[1, 1:4]) == pytest.approx(1.0)


def test_sampled_configurations_are_untried_and_keep_to_steps_and_conditions() -> None:
    space, rng = cube(*CONFIGURATIONS), np.random.RandomState(0)
    for units in (space.sample(rng, space.units[:2]), space.sample_nearby(rng, space.units[:2])):
        assert len(units) > 10
        for unit in units:
            params = space.decode(unit)
            assert params["size"] in (2, 4, 6, 8) and 1e-4 <= params["rate"] <= 1
            assert ("depth" in params) == (params["model"] == "b")
            assert params not in [{k: v for k, v in c.items() if k != "constant"} for c in CONFIGURATIONS]


def test_exhausted_space_has_no_candidates() -> None:
    space = cube(*({"model": name} for name in "abc"))
    assert len(space.sample(np.random.RandomState(0), space.units)) == 0


def test_units_convert_to_another_space() -> None:
    new = {
        "rate": FloatDistribution(0.01, 1, log=True),
        "share": FloatDistribution(0, 1),
        "model": CategoricalDistribution(["a", "b", "c"]),
        "size": IntDistribution(1, 9),
    }
    old = {
        "rate": FloatDistribution(0.1, 10, log=True),
        "size": CategoricalDistribution([1, 9]),  # another kind of parameter
        "model": CategoricalDistribution(["b", "c"]),
        "gone": FloatDistribution(0, 1),
        "share": FloatDistribution(1e-4, 1, log=True),
    }
    params = {"rate": 0.1, "share": 0.01, "model": "c", "size": 5}
    here = UnitCube([create_trial(params=params, distributions=new, value=0.0)])
    there = {"rate": 1.0, "size": 1, "model": "b", "gone": 0.5, "share": 1.0}
    other = UnitCube([create_trial(params=there, distributions=old, value=0.0)])
    units = np.vstack([here.units, here.units])
    units[1, list(here.space).index("model")] = 0.1  # a: not in the other space
    found = here.convert(units, other)
    assert found[0] == pytest.approx([0.0, np.nan, 0.75, np.nan, 0.5], nan_ok=True)
    assert found[1] == pytest.approx([0.0, np.nan, np.nan, np.nan, 0.5], nan_ok=True)
