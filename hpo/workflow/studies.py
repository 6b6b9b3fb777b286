"""The studies of a database: listed, opened by name, their progress, their best configuration so far."""

from typing import Any

import optuna
from optuna.trial import FrozenTrial

from hpo.errors import StudyError, did_you_mean
from hpo.storage import budget
from hpo.storage.records.study import StudyRecord, complete_trials
from hpo.storage.records.trial import TrialRecord
from hpo.storage.status import StudyStatus, read_status
from hpo.storage.storage import Storage, open_storage


def list_studies(storage: str | None = None) -> list[StudyStatus]:
    """Return the status of every study, the latest last.

    `storage` is the database's URL; None: `HPO_STORAGE`, else `studies/hpo.db`. Raises `StorageError`.
    """
    database = open_storage(storage)
    return [read_status(database, name) for name in budget.list_studies(database)]


def status(name: str | None = None, storage: str | None = None) -> StudyStatus:
    """Return the progress of study `name`, or of the latest one, and the disk space it uses on this machine.

    Raises `StudyError` for an unknown study.
    """
    database = open_storage(storage)
    return read_status(database, open_study(database, name).study_name, disk=True)


def open_study(storage: Storage, name: str | None) -> optuna.Study:
    """Open the study `name`, or the latest one. Raises `StudyError`."""
    known = budget.list_studies(storage)
    if not known:
        raise StudyError("There are no studies yet. Start one with `hpo init DATA`, then `hpo run STUDY.yaml`.")
    if name is None:
        name = known[-1]
    if name not in known:
        some = ", ".join(known[-5:])
        raise StudyError(f"There is no study '{name}'.{did_you_mean(name, known)} The latest are: {some}.")
    return optuna.load_study(study_name=name, storage=storage)


def find_trial(study: optuna.Study, number: int) -> FrozenTrial:
    """Return trial `number` of a study. Raises `StudyError` where there is none."""
    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise StudyError(f"'{study.study_name}' has no trial {number}; its trials are 0 to {len(trials) - 1}.")
    return trials[number]


def best_configuration(name: str | None, storage: str | None) -> dict[str, Any]:
    """Return the winner of a study, or its best trial so far: trial, value, metric, params, first_trial.

    `first_trial` is the configuration as another study's `first_trials` take it. Raises `StudyError` when no trial is
    complete.
    """
    study = open_study(open_storage(storage), name)
    record = StudyRecord.of(study)
    if record.result is not None:
        winner = record.result.winner
        trial, value, params = winner.trial, winner.mean, winner.params
    else:
        complete = complete_trials(study)
        if not complete:
            raise StudyError(f"No trial of '{study.study_name}' is complete yet; see `hpo status`.")
        trial, value, params = complete[0].number, float(complete[0].value or 0.0), TrialRecord.of(complete[0]).params
    kept = {key: value for key, value in params.items() if value is not None}
    return {"trial": trial, "value": value, "metric": record.metric, "params": params, "first_trial": kept}
