"""Builds a study's sampler and pruner by name: hpo's defaults, or a class of Optuna's."""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler

from hpo.config.user_code import OBJECT
from hpo.errors import ConfigError, did_you_mean
from hpo.search.finite_space import FiniteSpace
from hpo.search.freeze_thaw import FreezeThawSampler
from hpo.search.halving import HalvingPruner


def build_sampler(
    config: Mapping[str, Any], conditional: bool, seed: int, finite_space: FiniteSpace | None = None
) -> BaseSampler:
    """Build the sampler called `config["name"]` with the rest of `config` as its arguments.

    The default, `freeze_thaw`, is `FreezeThawSampler`. `tpe` is Optuna's multivariate TPE, which samples by groups if
    the search space is `conditional`: without groups, conditional parameters would be sampled independently. `seed` is
    the default of an argument of that name, and the values in `finite_space` that of Grid search's `search_space`.

    Raises `ConfigError` for an unknown name or argument, or if the sampler refuses its arguments.
    """
    if "finite_space" in config:
        raise ConfigError("sampler.finite_space: hpo sets this argument; remove it.")
    arguments = {"seed": seed, "group": conditional and config.get("multivariate", True), **config}
    if finite_space is not None:
        arguments = {"search_space": finite_space.choices, "finite_space": finite_space, **arguments}
    name = arguments.pop("name", "freeze_thaw")
    own = {"freeze_thaw": FreezeThawSampler, "tpe": TPESampler}
    sampler = _find("sampler", name, own | _concrete_classes(optuna.samplers, BaseSampler))
    if issubclass(sampler, TPESampler):
        arguments = {"multivariate": True, "constant_liar": True, **arguments}
    accepted = inspect.signature(sampler).parameters
    # Defaults go to the samplers that accept them; the user's own arguments are all checked.
    given = {key: value for key, value in arguments.items() if key in accepted or key in config}
    return _build("sampler", sampler, given)


def build_pruner(config: Mapping[str, Any]) -> BasePruner:
    """Build the pruner called `config["name"]` with the rest of `config` as its arguments.

    The default, `successive_halving`, is `HalvingPruner`. It keeps the better half: with the better third, 3 of the
    quickstart's 11 pruned trials would have ended in its top 3; with halves 1 of 10, for a quarter more search time
    (`benchmarks/pruned_trials.py`). `none` never prunes.

    Raises `ConfigError` for an unknown name or argument, or if the pruner refuses its arguments.
    """
    arguments = dict(config)
    name = arguments.pop("name", "successive_halving")
    own = {"successive_halving": HalvingPruner, "none": NopPruner}
    pruner = _find("pruner", name, own | _concrete_classes(optuna.pruners, BasePruner))
    return _build("pruner", pruner, arguments)


def _concrete_classes(module: Any, base: type) -> dict[str, type]:
    """Return the public classes of `module` that derive from `base` and are not abstract, by name."""
    public = {name: getattr(module, name) for name in module.__all__}
    return {
        name: member
        for name, member in public.items()
        if isinstance(member, type) and issubclass(member, base) and not inspect.isabstract(member)
    }


def is_object(config: Mapping[str, Any]) -> bool:
    """Return whether a recorded sampler or pruner is an object that was passed to `hpo.run`."""
    return str(config.get("name", "")).startswith(OBJECT)


def _find(key: str, name: Any, classes: Mapping[str, type]) -> type:
    if str(name).startswith(OBJECT):
        raise ConfigError(
            f"{key}: the study was started from Python with a {str(name).removeprefix(OBJECT)} object, which only the "
            f"workers of that hpo.run have. Pass it to hpo.run again, or name a {key} in the study file."
        )
    if str(name) not in classes:
        hint = did_you_mean(str(name), classes)
        raise ConfigError(f"{key}: '{name}' is unknown.{hint} Allowed: {', '.join(classes)}.")
    return classes[str(name)]


def _build(key: str, kind: Any, arguments: Mapping[str, Any]) -> Any:
    accepted = inspect.signature(kind).parameters
    for name in arguments:
        if name not in accepted:
            hint, allowed = did_you_mean(name, accepted), ", ".join(accepted) or "none"
            raise ConfigError(f"{key}.{name}: {kind.__name__} takes no such argument.{hint} Allowed: {allowed}.")
    try:
        with warnings.catch_warnings():
            # Experimental or not, the behavior is that of the tested version of Optuna.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return kind(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        reason = str(error).rstrip(".")
        raise ConfigError(f"{key}: {kind.__name__} cannot be created with {dict(arguments)}: {reason}.") from None
