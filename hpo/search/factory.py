"""The sampler of a study: hpo's default, or any of Optuna's by its class name."""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import optuna

from hpo.errors import ConfigError, did_you_mean
from hpo.search.freeze_thaw import FreezeThawSampler
from hpo.search.halving import HalvingPruner


def build_sampler(given: Mapping[str, Any], conditional: bool, seed: int) -> optuna.samplers.BaseSampler:
    """Build the sampler called `given["name"]` with the rest of `given` as its arguments.

    `freeze_thaw`, the default, is hpo's own (`FreezeThawSampler`). `tpe` is Optuna's multivariate TPE; where the space
    has conditions it samples by groups, or the conditional parameters would leave the joint model.
    Raises `ConfigError` for an unknown name or argument.
    """
    arguments = {"seed": seed, "group": conditional and given.get("multivariate", True), **given}
    name = arguments.pop("name", "freeze_thaw")
    kinds = _classes(optuna.samplers, optuna.samplers.BaseSampler)
    kind = _look_up("sampler", name, {"freeze_thaw": FreezeThawSampler, "tpe": optuna.samplers.TPESampler, **kinds})
    if issubclass(kind, optuna.samplers.TPESampler):
        arguments = {"multivariate": True, "constant_liar": True, **arguments}
    known = inspect.signature(kind).parameters
    # What hpo adds is for those that take it; what a person gives is held against what there is.
    return _build("sampler", kind, {key: value for key, value in arguments.items() if key in known or key in given})


def build_pruner(given: Mapping[str, Any]) -> optuna.pruners.BasePruner:
    """Build the pruner called `given["name"]` with the rest of `given` as its arguments.

    `successive_halving`, the default, compares trials at the same shares of their own schedules (`HalvingPruner`):
    one goes on only when it is among the better half of those that came so far. (By thirds, 3
    of the quickstart's 11 pruned trials would have ended in its top 3; by halves 1 of 10, for a quarter more search
    time: `benchmarks/pruned_trials.py`.) `none` never prunes. Raises `ConfigError` for an unknown name or argument.
    """
    arguments = dict(given)
    name = arguments.pop("name", "successive_halving")
    own = {"successive_halving": HalvingPruner, "none": optuna.pruners.NopPruner}
    return _build(
        "pruner", _look_up("pruner", name, own | _classes(optuna.pruners, optuna.pruners.BasePruner)), arguments
    )


def _classes(module: Any, base: type) -> dict[str, type]:
    """The classes of `module` that can be made by name: those that are not abstract."""
    found = {name: getattr(module, name) for name in module.__all__}
    return {
        name: kind
        for name, kind in found.items()
        if isinstance(kind, type) and issubclass(kind, base) and not inspect.isabstract(kind)
    }


def _look_up(key: str, name: Any, known: Mapping[str, type]) -> type:
    if str(name) not in known:
        hint = did_you_mean(str(name), known)
        raise ConfigError(f"{key}: '{name}' is unknown.{hint} Allowed: {', '.join(known)}.")
    return known[str(name)]


def _build(key: str, kind: Any, arguments: Mapping[str, Any]) -> Any:
    known = inspect.signature(kind).parameters
    for name in arguments:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(
                f"{key}.{name}: {kind.__name__} takes no such argument.{hint} Allowed: {', '.join(known) or 'none'}."
            )
    try:
        with warnings.catch_warnings():
            # The pinned version's behaviour is what counts, marked experimental or not.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return kind(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        reason = str(error).rstrip(".")
        raise ConfigError(f"{key}: {kind.__name__} cannot be made from {dict(arguments)}: {reason}.") from None
