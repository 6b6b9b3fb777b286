"""The budget and state of a study: its limits, what it has used, its phase and whether a stop was requested."""

from datetime import datetime

import optuna
from optuna.trial import TrialState
from sqlalchemy import delete, select

from hpo.errors import StudyError
from hpo.storage.models import LeaseRow, StudyRow
from hpo.storage.optuna_internals import models, study_id
from hpo.storage.storage import Storage, storage_of
from hpo.storage.transactions import BudgetSpent, count_reserved

__all__ = [
    "BudgetSpent",
    "add_seconds",
    "exhaust_budget",
    "list_studies",
    "prune_waiting",
    "request_stop",
    "seconds_left",
    "seconds_run",
    "set_budget",
    "set_phase",
]


def set_budget(study: optuna.Study, max_trials: int | None, max_seconds: float | None = None) -> None:
    """Set the limits of the study over all its runs: trials, and seconds of wall time. None means no limit."""
    with storage_of(study).transaction() as session:
        models.StudyModel.find_or_raise_by_id(study_id(study), session, for_update=True)
        row = session.get(StudyRow, study_id(study)) or StudyRow(study_id=study_id(study))
        row.max_trials, row.max_seconds = max_trials, max_seconds
        session.add(row)


def exhaust_budget(study: optuna.Study) -> None:
    """Start no further trial of the study: limit its budget to the trials that exist."""
    with storage_of(study).transaction() as session:
        models.StudyModel.find_or_raise_by_id(study_id(study), session, for_update=True)
        row = session.get(StudyRow, study_id(study)) or StudyRow(study_id=study_id(study))
        row.max_trials = count_reserved(session, study_id(study))
        session.add(row)


def add_seconds(study: optuna.Study, seconds: float) -> None:
    """Add `seconds` of wall time to what the study has used."""
    _update(study, seconds_run=StudyRow.seconds_run + seconds)


def seconds_run(study: optuna.Study) -> float:
    """Return the seconds of wall time that the study has used over all its runs."""
    return _row(study).seconds_run


def seconds_left(study: optuna.Study) -> float | None:
    """Return the seconds of wall time left in the budget, at least 0; None without a limit."""
    row = _row(study)
    return None if row.max_seconds is None else max(0.0, row.max_seconds - row.seconds_run)


def set_phase(study: optuna.Study, phase: str) -> None:
    """Set the phase of the study: search, confirm, retrain, finished or stopped."""
    _update(study, phase=phase)


def request_stop(study: optuna.Study, stop: bool = True) -> None:
    """Request that all workers of the study stop, on every machine; with `stop=False`, withdraw the request."""
    _update(study, stop_requested=stop)


def prune_waiting(study: optuna.Study) -> list[int]:
    """Mark every trial that still waits, started or not, as PRUNED; returns their numbers. Called as a search ends.

    PRUNED is final in Optuna. A trial left WAITING would be claimed in the next run of the study.
    """
    with storage_of(study).transaction() as session:
        waiting = select(models.TrialModel).where(
            models.TrialModel.study_id == study_id(study), models.TrialModel.state == TrialState.WAITING
        )
        trials = session.scalars(waiting.order_by(models.TrialModel.trial_id).with_for_update()).all()
        for trial in trials:
            trial.state, trial.datetime_complete = TrialState.PRUNED, datetime.now()
            # Optuna requires a start of a finished trial, also of one that never started.
            trial.datetime_start = trial.datetime_start or trial.datetime_complete
            session.execute(delete(LeaseRow).where(LeaseRow.trial_id == trial.trial_id))
        return [int(trial.number) for trial in trials]


def list_studies(storage: Storage) -> list[str]:
    """Return the names of hpo's studies in the database, the newest last; child studies are no studies of a user."""
    with storage.reading() as session:
        names = session.scalars(
            select(models.StudyModel.study_name)
            .join(StudyRow, StudyRow.study_id == models.StudyModel.study_id)
            .where(StudyRow.parent_id.is_(None), StudyRow.job.is_(None))
            .order_by(models.StudyModel.study_id)
        )
        return list(names)


def _row(study: optuna.Study) -> StudyRow:
    with storage_of(study).reading() as session:
        row = session.get(StudyRow, study_id(study))
        if row is None:
            raise StudyError(f"The study {study.study_name!r} has no budget: it was not created by hpo.")
        session.expunge(row)
        return row


def _update(study: optuna.Study, **values: object) -> None:
    with storage_of(study).transaction() as session:
        row = session.get(StudyRow, study_id(study), with_for_update=True)
        if row is None:
            raise StudyError(f"The study {study.study_name!r} has no budget: it was not created by hpo.")
        for name, value in values.items():
            setattr(row, name, value)
