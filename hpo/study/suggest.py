"""From a search space to Optuna: suggesting a trial's parameters, and the configurations to try first."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from hpo.core.config import StudyConfig
from hpo.core.errors import ConfigError
from hpo.core.search_space import Categorical, Fixed, Float, Int, SearchSpace
from hpo.core.trial import TrialParams, share_for_count


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
    a value outside the space.
    """
    written = config.first_trials or ({},)
    queue: list[dict[str, Any]] = []
    for number, given in enumerate(written):
        for model in [given["model"]] if "model" in given else config.labels:
            point = _complete({**given, "model": model}, config.search_space, layers[model], number)
            if point not in queue:
                queue.append(point)
    return queue


def _complete(given: Mapping[str, Any], space: SearchSpace, layers: int, number: int) -> dict[str, Any]:
    """A whole configuration of `space` from a partial one; what is not given is the default, moved into the space."""
    params = TrialParams.model_validate(given)
    point: dict[str, Any] = {"model": params.model}
    for name, parameter in space.parameters.items():
        if isinstance(parameter, Fixed) or not space.active(name, {**given, **point}):
            continue
        value = getattr(params, name)
        stated = name in given
        if name == "frozen_share" and value is None:
            stated = "frozen_layers" in given
            try:
                value = share_for_count(params.resolve_frozen_layers(layers), layers)
            except ValueError as error:
                raise ConfigError(f"first_trials[{number}].{error}.") from None
        nearest = parameter.nearest(value)
        if stated and nearest != value and name != "frozen_share":
            raise ConfigError(
                f"first_trials[{number}].{name}: {value} is outside the search space; the nearest is {nearest}."
            )
        point[name] = nearest
    return point
