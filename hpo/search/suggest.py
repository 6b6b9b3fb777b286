"""Suggests the parameters of a trial from the search space."""

from collections.abc import Sequence
from typing import Any

from optuna.trial import BaseTrial

from hpo.config.search_space import Categorical, Fixed, Float, Int, SearchSpace
from hpo.config.trial_params import TrialParams


def suggest(trial: BaseTrial, space: SearchSpace, models: Sequence[str]) -> TrialParams:
    """Suggest one configuration: the model first, then each parameter whose condition holds."""
    values: dict[str, Any] = {"model": trial.suggest_categorical("model", list(models))}
    for name, parameter in space.parameters.items():
        if not space.is_active(name, values):
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
