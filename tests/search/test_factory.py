"""Samplers and pruners by name: hpo's defaults, Optuna's classes, and errors for unknown names and arguments."""

from typing import Any

import optuna
import pytest

from hpo.errors import ConfigError
from hpo.search.factory import build_pruner, build_sampler
from hpo.search.freeze_thaw import FreezeThawSampler
from hpo.search.halving import HalvingPruner


def test_tpe_samples_conditional_parameters_jointly_in_groups() -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if trial.suggest_categorical("branch", ["a", "b"]) == "b":
            return x + trial.suggest_float("y", 0, 1)
        return x

    sampler = build_sampler({"name": "tpe", "n_startup_trials": 3}, conditional=True, seed=1)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=10)
    relative = sampler.infer_relative_search_space(study, study.trials[-1])
    # Without groups, the joint model would have only the parameters that all trials share.
    assert {"x", "y", "branch"} == {name for group in sampler._search_space_group.search_spaces for name in group}  # type: ignore[attr-defined]
    assert set(relative) >= {"x", "branch"}
    assert not build_sampler({"name": "tpe"}, conditional=False, seed=1)._group  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, FreezeThawSampler),
        ({"name": "tpe", "n_ei_candidates": 12}, optuna.samplers.TPESampler),
        ({"name": "TPESampler", "multivariate": False}, optuna.samplers.TPESampler),
        ({"n_startup_trials": 8}, FreezeThawSampler),
        ({"name": "RandomSampler"}, optuna.samplers.RandomSampler),
        ({"name": "BruteForceSampler"}, optuna.samplers.BruteForceSampler),  # marked experimental: no warning
        ({"name": "NSGAIISampler", "population_size": 4}, optuna.samplers.NSGAIISampler),
    ],
)
def test_sampler_is_built_by_name(given: dict[str, Any], kind: type) -> None:
    assert type(build_sampler(given, conditional=True, seed=0)) is kind


def test_sampler_seed_defaults_to_that_of_the_study() -> None:
    def sample(given: dict[str, Any], seed: int) -> float:
        study = optuna.create_study(sampler=build_sampler(given, conditional=False, seed=seed))
        return study.ask().suggest_float("x", 0, 1)

    for name in ("freeze_thaw", "tpe", "RandomSampler"):
        assert sample({"name": name}, 1) == sample({"name": name}, 1) != sample({"name": name}, 2)
        assert sample({"name": name, "seed": 5}, 1) == sample({"name": name, "seed": 5}, 2)


def test_pruner_is_built_by_name() -> None:
    default = build_pruner({})
    assert isinstance(default, HalvingPruner)
    assert build_pruner({"name": "successive_halving", "reduction_factor": 3})._factor == 3  # type: ignore[attr-defined]
    of_optuna = build_pruner({"name": "SuccessiveHalvingPruner", "min_resource": 2})
    assert isinstance(of_optuna, optuna.pruners.SuccessiveHalvingPruner)
    assert isinstance(build_pruner({"name": "none"}), optuna.pruners.NopPruner)
    assert isinstance(build_pruner({"name": "MedianPruner", "n_startup_trials": 1}), optuna.pruners.MedianPruner)


@pytest.mark.parametrize(
    ("build", "given", "expected"),
    [
        (
            "sampler",
            {"name": "TPSampler"},
            "sampler: 'TPSampler' is unknown. Did you mean 'TPESampler'? Allowed: freeze_thaw, tpe, ",
        ),
        ("sampler", {"name": "BaseSampler"}, "sampler: 'BaseSampler' is unknown."),
        ("sampler", {"name": ["tpe"]}, "sampler: '['tpe']' is unknown."),
        (
            "sampler",
            {"n_startup": 3},
            "sampler.n_startup: FreezeThawSampler takes no such argument. Did you mean 'n_startup_tri",
        ),
        ("sampler", {"name": "RandomSampler", "group": True}, "sampler.group: RandomSampler takes no such argument."),
        ("sampler", {"name": "GridSampler"}, "sampler: GridSampler cannot be created with {'seed': 0}: "),
        ("pruner", {"name": "MedianPruned"}, "pruner: 'MedianPruned' is unknown. Did you mean 'MedianPruner'?"),
        ("pruner", {"name": "none", "patience": 1}, "pruner.patience: NopPruner takes no such argument."),
        ("pruner", {"reduction_factors": 2}, "Did you mean 'reduction_factor'?"),
        (
            "pruner",
            {"name": "successive_halving", "reduction_factor": 1},
            "reduction_factor is 1, and must be 2 or more",
        ),
    ],
)
def test_unknown_name_or_argument_raises_with_the_nearest(build: str, given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_pruner(given) if build == "pruner" else build_sampler(given, conditional=False, seed=0)
    assert expected in str(caught.value)
