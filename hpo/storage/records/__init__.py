"""What hpo records of a study, of its trials and of its final model; no other folder names their attributes."""

from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from hpo.core.direction import Direction
from hpo.storage.optuna_internals import optuna_storage, trial_id

PARAMS = "hpo:params"
EXECUTION = "hpo:execution"
CURVE = "hpo:curve"
KEPT = (PARAMS, EXECUTION, CURVE)


def record(trial: optuna.Trial, key: str, value: Any) -> None:
    """Write one of `KEPT`, fenced and retried as every write of a trial."""
    optuna_storage(trial.study).set_trial_system_attr(trial_id(trial), key, value)


def params_of(trial: FrozenTrial) -> dict[str, Any]:
    """The resolved parameters of a trial, those it uses; what was sampled where it never began to train."""
    return dict(trial.system_attrs.get(PARAMS) or trial.params)


def curve_of(trial: FrozenTrial) -> list[dict[str, float]]:
    """A point for each rung: step, epoch, train_loss and seconds, and value and loss where they were finite."""
    return list(trial.system_attrs.get(CURVE, ()))


def direction_of(study: optuna.Study) -> Direction:
    """Return the direction of a study's one objective."""
    return "maximize" if study.direction == StudyDirection.MAXIMIZE else "minimize"
