"""A study's budget and state: how much it may use, how much it has used, which phase it is in, whether to stop."""

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
    "close",
    "list_studies",
    "prune_waiting",
    "request_stop",
    "seconds_left",
    "seconds_run",
    "set_budget",
    "set_phase",
]


def set_budget(study: optuna.Study, max_trials: int | None, max_seconds: float | None = None) -> None:
    """Set, or raise, what the study may use in all: trials, and seconds of running; None is no limit."""
    with storage_of(study).transaction() as session:
        models.StudyModel.find_or_raise_by_id(study_id(study), session, for_update=True)
        row = session.get(StudyRow, study_id(study)) or StudyRow(study_id=study_id(study))
        row.max_trials, row.max_seconds = max_trials, max_seconds
        session.add(row)


def close(study: optuna.Study) -> None:
    """Let no trial of the study begin any more: its budget is those that there are."""
    with storage_of(study).transaction() as session:
        models.StudyModel.find_or_raise_by_id(study_id(study), session, for_update=True)
        row = session.get(StudyRow, study_id(study)) or StudyRow(study_id=study_id(study))
        row.max_trials = count_reserved(session, study_id(study))
        session.add(row)


def add_seconds(study: optuna.Study, seconds: float) -> None:
    """Count `seconds` of wall time for which the study has run."""
    _update(study, seconds_run=StudyRow.seconds_run + seconds)


def seconds_run(study: optuna.Study) -> float:
    """Seconds of wall time for which the study has run, in all its runs."""
    return _row(study).seconds_run


def seconds_left(study: optuna.Study) -> float | None:
    """Seconds of wall time that the budget leaves, 0 or more; None without a limit."""
    row = _row(study)
    return None if row.max_seconds is None else max(0.0, row.max_seconds - row.seconds_run)


def set_phase(study: optuna.Study, phase: str) -> None:
    """Say which phase the study is in: search, confirm, retrain, finished or stopped."""
    _update(study, phase=phase)


def request_stop(study: optuna.Study, stop: bool = True) -> None:
    """Ask all workers of the study to stop, wherever they run; with `stop=False`, take the request back."""
    _update(study, stop_requested=stop)


def prune_waiting(study: optuna.Study) -> list[int]:
    """Mark every trial that still waits, started or not, as PRUNED; returns their numbers. Called as a search ends.

    PRUNED is final in Optuna; a trial left WAITING would be taken up by the study's next run.
    """
    with storage_of(study).transaction() as session:
        waiting = select(models.TrialModel).where(
            models.TrialModel.study_id == study_id(study), models.TrialModel.state == TrialState.WAITING
        )
        trials = session.scalars(waiting.order_by(models.TrialModel.trial_id).with_for_update()).all()
        for trial in trials:
            trial.state, trial.datetime_complete = TrialState.PRUNED, datetime.now()
            # One that was never begun has no start, which Optuna demands of a finished trial.
            trial.datetime_start = trial.datetime_start or trial.datetime_complete
            session.execute(delete(LeaseRow).where(LeaseRow.trial_id == trial.trial_id))
        return [int(trial.number) for trial in trials]


def list_studies(storage: Storage) -> list[str]:
    """The names of hpo's studies in the database, the latest last; those that belong to another are left out."""
    with storage.reading() as session:
        names = session.scalars(
            select(models.StudyModel.study_name)
            .join(StudyRow, StudyRow.study_id == models.StudyModel.study_id)
            .where(StudyRow.parent_id.is_(None))
            .order_by(models.StudyModel.study_id)
        )
        return list(names)


def _row(study: optuna.Study) -> StudyRow:
    with storage_of(study).reading() as session:
        row = session.get(StudyRow, study_id(study))
        if row is None:
            raise StudyError(f"The study {study.study_name!r} has no budget: it was not made by hpo.")
        session.expunge(row)
        return row


def _update(study: optuna.Study, **values: object) -> None:
    with storage_of(study).transaction() as session:
        row = session.get(StudyRow, study_id(study), with_for_update=True)
        if row is None:
            raise StudyError(f"The study {study.study_name!r} has no budget: it was not made by hpo.")
        for name, value in values.items():
            setattr(row, name, value)
