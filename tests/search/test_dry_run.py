"""Every sampler of Optuna's with every pruner runs on hpo's search spaces, or is refused before anything is trained."""

import optuna
import pytest

from hpo.config.space_parser import parse_search_space
from hpo.errors import ConfigError
from hpo.search.dry_run import dry_run
from hpo.search.factory import build_pruner, build_sampler
from hpo.search.finite_space import FiniteSpace

MODELS = ["small", "large"]
CONDITIONAL = parse_search_space(
    {
        "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
        "epochs": {"low": 1, "high": 4},
        "peft": ["none", "lora"],
        "lora_r": {"low": 4, "high": 32, "when": {"peft": ["lora"]}},
        "weight_decay": 0.01,
    }
)
FINITE = parse_search_space({"learning_rate": [1e-3, 3e-3], "peft": ["none", "lora"], "batch_size": 32})
SAMPLERS = ["freeze_thaw", "tpe", "RandomSampler", "TPESampler", "BruteForceSampler", "GridSampler", "NSGAIISampler"]
SAMPLERS += ["NSGAIIISampler", "QMCSampler"]
PRUNERS = ["successive_halving", "none", "MedianPruner", "HyperbandPruner", "SuccessiveHalvingPruner"]
PRUNERS += ["PatientPruner", "WilcoxonPruner", "ThresholdPruner", "PercentilePruner"]
ARGUMENTS = {
    "PatientPruner": {"wrapped_pruner": None, "patience": 1},
    "ThresholdPruner": {"lower": 0.1},
    "PercentilePruner": {"percentile": 50.0},
}


def test_lists_name_every_class_of_optuna() -> None:
    """A class that a release of Optuna adds is to be tried as well."""
    special = {
        "BaseSampler",
        "BaseGASampler",
        "PartialFixedSampler",
        "CmaEsSampler",
        "GPSampler",
    }  # abstract, arguments, a package, seconds
    assert set(optuna.samplers.__all__) - special <= {*SAMPLERS, "CmaEsAttrKeys", "nsgaii"}
    assert set(optuna.pruners.__all__) <= {*PRUNERS, "BasePruner", "NopPruner"}


SPACES = {"conditional": CONDITIONAL, "finite": FINITE}
CASES = [
    (space, sampler, pruner)
    for space in SPACES
    for sampler in SAMPLERS
    for pruner in PRUNERS
    if space == "finite" or sampler not in ("GridSampler", "BruteForceSampler")  # these need a finite space
]


@pytest.mark.parametrize(("space", "sampler", "pruner"), CASES)
def test_sampler_and_pruner_run_together(space: str, sampler: str, pruner: str) -> None:
    finite = FiniteSpace.of(SPACES[space], MODELS)
    built = build_sampler({"name": sampler}, conditional=True, seed=0, finite_space=finite)
    dry_run(built, build_pruner({"name": pruner, **ARGUMENTS.get(pruner, {})}), SPACES[space], MODELS)


def test_package_that_a_sampler_lacks_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"CmaEsSampler with MedianPruner fails .*cmaes"):
        dry_run(optuna.samplers.CmaEsSampler(), optuna.pruners.MedianPruner(), CONDITIONAL, MODELS)


def test_grid_search_of_an_infinite_space_is_an_error() -> None:
    with pytest.raises(ConfigError, match="search_space"):
        build_sampler({"name": "GridSampler"}, conditional=True, seed=0)
