"""The sampler of a study: hpo's default, or any of Optuna's by its class name."""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import optuna

from hpo.core.errors import ConfigError, did_you_mean


def build_sampler(given: Mapping[str, Any], conditional: bool, seed: int) -> optuna.samplers.BaseSampler:
    """Build the sampler called `given["name"]` with the rest of `given` as its arguments.

    `tpe`, the default, is Optuna's multivariate TPE; where the space has conditions it samples by groups, or the
    conditional parameters would leave the joint model. Raises `ConfigError` for an unknown name or argument.
    """
    arguments = {key: value for key, value in given.items() if key != "name"}
    name = given.get("name", "tpe")
    if name == "tpe":
        defaults = {"multivariate": True, "group": conditional, "constant_liar": True, "seed": seed}
        with warnings.catch_warnings():
            # `group` is marked experimental; the pinned version's behaviour is tested.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return _build(optuna.samplers.TPESampler, {**defaults, **arguments}, "sampler")
    known = _classes(optuna.samplers, optuna.samplers.BaseSampler)
    if name not in known:
        allowed = ", ".join(["tpe", *known])
        raise ConfigError(f"sampler: '{name}' is unknown.{did_you_mean(str(name), known)} Allowed: {allowed}.")
    if "seed" in inspect.signature(known[name]).parameters:
        arguments.setdefault("seed", seed)
    return _build(known[name], arguments, "sampler")


def build_pruner(given: Mapping[str, Any]) -> optuna.pruners.BasePruner:
    """Build the pruner called `given["name"]` with the rest of `given` as its arguments.

    `successive_halving`, the default, is asynchronous successive halving (Li et al., 2020) over the rungs: at
    rungs 1, 3, 9, … a trial goes on only when it is among the best third of those that came so far. `none` never
    prunes. Raises `ConfigError` for an unknown name or argument.
    """
    arguments = {key: value for key, value in given.items() if key != "name"}
    name = given.get("name", "successive_halving")
    if name == "successive_halving":
        defaults = {"min_resource": 1, "reduction_factor": 3}
        return _build(optuna.pruners.SuccessiveHalvingPruner, {**defaults, **arguments}, "pruner")
    if name == "none":
        return optuna.pruners.NopPruner()
    known = _classes(optuna.pruners, optuna.pruners.BasePruner)
    if name not in known:
        allowed = ", ".join(["successive_halving", "none", *known])
        raise ConfigError(f"pruner: '{name}' is unknown.{did_you_mean(str(name), known)} Allowed: {allowed}.")
    return _build(known[name], arguments, "pruner")


def _classes(module: Any, base: type) -> dict[str, type]:
    found = {name: getattr(module, name) for name in module.__all__}
    return {name: value for name, value in found.items() if isinstance(value, type) and issubclass(value, base)}


def _build(kind: Any, arguments: Mapping[str, Any], key: str) -> Any:
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {kind.__name__} cannot be made from {dict(arguments)}: {error}.") from None
