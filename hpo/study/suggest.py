"""From a search space to Optuna: suggesting a trial's parameters, and the configurations to try first."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from hpo.core.config import StudyConfig
from hpo.core.errors import ConfigError
from hpo.core.search_space import Categorical, Fixed, Float, Int, SearchSpace
from hpo.core.trial import TrialParams, share_for_count

# What a default of None (the model's own dropout, never stopping) comes closest to where the space has numbers only:
# 0.1 is the dropout that BERT, RoBERTa, DistilBERT, ELECTRA and DeBERTa were trained with.
NEAREST_TO_NONE = {
    "dropout": 0.1,
    "head_dropout": 0.1,
    "lora_alpha": 16,
    "early_stopping_patience": 10**9,
    "shots": 10**9,
}


def suggest(trial: optuna.trial.BaseTrial, space: SearchSpace, models: Sequence[str]) -> TrialParams:
    """Sample one configuration: the model first, then each parameter whose condition holds."""
    values: dict[str, Any] = {"model": trial.suggest_categorical("model", list(models))}
    for name, parameter in space.parameters.items():
        if not space.active(name, values):
            continue
        match parameter:
            case Fixed():
                values[name] = parameter.value
            case Categorical():
                values[name] = trial.suggest_categorical(name, list(parameter.choices))
            case Int():
                values[name] = trial.suggest_int(
                    name, parameter.low, parameter.effective_high, log=parameter.log, step=parameter.step or 1
                )
            case Float():
                values[name] = trial.suggest_float(
                    name, parameter.low, parameter.effective_high, log=parameter.log, step=parameter.step
                )
    return TrialParams(**values)


def first_trials(config: StudyConfig, layers: Mapping[str, int]) -> list[dict[str, Any]]:
    """The configurations to try first, as Optuna parameters of the study's space.

    Those the study names, or the defaults of `TrialParams`; one that names no model is tried with each. `layers` is
    the depth of each model, for a number of frozen layers where the space samples a share. Raises `ConfigError` for
    a value that no trial of the space could have.
    """
    written = config.first_trials or ({},)
    queue: list[dict[str, Any]] = []
    for number, given in enumerate(written):
        for model in [given["model"]] if "model" in given else config.labels:
            point = _complete({**given, "model": model}, config.search_space, layers[model], f"first_trials[{number}]")
            if point not in queue:
                queue.append(point)
    return queue


def _complete(given: Mapping[str, Any], space: SearchSpace, layers: int, where: str) -> dict[str, Any]:
    """A whole configuration of `space` from a partial one; what is not given is the default, moved into the space."""
    asked = TrialParams.model_validate(given)
    values: dict[str, Any] = {"model": asked.model}
    try:
        for name, parameter in space.parameters.items():
            if space.active(name, values):
                values[name] = parameter.nearest(_start(name, parameter, asked, layers))
        carried_out = TrialParams(**values)
        for name in given:
            wanted, got = (_resolved(name, params, layers) for params in (asked, carried_out))
            if wanted != got and not (isinstance(got, float) and math.isclose(wanted, got)):
                raise ValueError(
                    f"{name}: {wanted} is outside the search space; the nearest is {got}"
                    if name in values or (name == "frozen_layers" and "frozen_share" in values)
                    else f"{name}: {wanted} is not in the search space, where each trial of this kind has {got}"
                )
    except ValueError as error:
        raise ConfigError(f"{where}.{error}.") from None
    return {name: v for name, v in values.items() if not isinstance(space.parameters.get(name), Fixed)}


def _start(name: str, parameter: Any, params: TrialParams, layers: int) -> Any:
    """The value of `params` for one parameter of the space: frozen layers as a count or a share, whichever is due."""
    frozen = params.resolve_frozen_layers(layers)
    value = {"frozen_layers": frozen, "frozen_share": share_for_count(frozen, layers)}.get(name, getattr(params, name))
    return NEAREST_TO_NONE[name] if value is None and None not in parameter.extremes() else value


def _resolved(name: str, params: TrialParams, layers: int) -> Any:
    return params.resolve_frozen_layers(layers) if name.startswith("frozen_") else getattr(params, name)
