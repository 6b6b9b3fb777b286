"""The budget and state of a study: its limits, what it has used and who counts it, its phase, and a requested stop."""

import json
import os
import time
from datetime import datetime

import optuna
from optuna.trial import TrialState
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from hpo.core.process import machine, own_start
from hpo.errors import StudyError
from hpo.storage.models import LeaseRow, StudyRow
from hpo.storage.optuna_internals import models, study_id
from hpo.storage.records.trial import ATTEMPT, FAILURE, INFRASTRUCTURE
from hpo.storage.storage import Storage, storage_of
from hpo.storage.transactions import BudgetSpent, count_reserved

__all__ = [
    "BudgetSpent",
    "StudyClock",
    "add_seconds",
    "clear_parent",
    "exhaust_budget",
    "list_studies",
    "prune_waiting",
    "request_stop",
    "requeue_failed",
    "seconds_left",
    "seconds_run",
    "set_budget",
    "set_parent",
    "set_phase",
]

STALE_SECONDS = 10.0  # without an advance of the clock; the process that keeps it advances it every 3 s or more often


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


def add_seconds(study: optuna.Study, seconds: float, expected: float | None = None) -> bool:
    """Add `seconds` of wall time to what the study has used.

    With `expected`, only if that is what it has used so far; returns whether it was. Two processes that count the same
    time thus count it once.
    """
    with storage_of(study).transaction() as session:
        row = update(StudyRow).where(StudyRow.study_id == study_id(study))
        if expected is not None:
            row = row.where(StudyRow.seconds_run == expected)
        result = session.connection().execute(row.values(seconds_run=StudyRow.seconds_run + seconds))
        return bool(result.rowcount)


def seconds_run(study: optuna.Study) -> float:
    """Return the seconds of wall time that the study has used over all its runs."""
    return _row(study).seconds_run


def seconds_left(study: optuna.Study) -> float | None:
    """Return the seconds of wall time left in the budget, at least 0; None without a limit."""
    row = _row(study)
    return None if row.max_seconds is None else max(0.0, row.max_seconds - row.seconds_run)


class StudyClock:
    """One process's view of the clock. Call `tick` every few seconds.

    The database holds the seconds only. A process that reads them unchanged for `STALE_SECONDS` of its own monotonic
    time advances them by that time and keeps the clock; one that reads another's advance stops keeping it. So no time
    is counted twice, and none is lost when the process that keeps the clock is killed.
    """

    def __init__(self, study: optuna.Study, *, keeps: bool = False) -> None:
        """`keeps`: whether this process advances the clock from the start, as the parent of a run does."""
        self._study = study
        self._keeps = keeps
        self._known: float | None = None
        self._since = time.monotonic()

    def tick(self) -> None:
        """Advance the clock if this process keeps it. Raises `StorageUnavailable`; the next call counts the outage."""
        stored, now = seconds_run(self._study), time.monotonic()
        if self._known is not None and stored != self._known:
            self._keeps = False
        elif self._keeps or now - self._since >= STALE_SECONDS:
            if self._known is not None or self._keeps:
                self._keeps = add_seconds(self._study, now - self._since, expected=stored)
                stored = seconds_run(self._study)
        else:
            self._known = stored
            return
        self._known, self._since = stored, now


def set_phase(study: optuna.Study, phase: str, reason: str | None = None) -> None:
    """Set the phase: search, confirm, retrain, finished, stopped or failed, with the `reason` of a failure."""
    _update(study, phase=phase, phase_reason=reason)


def set_parent(study: optuna.Study) -> None:
    """Record this process as the parent of the study's run."""
    _update(study, parent_machine=machine(), parent_pid=os.getpid(), parent_start=own_start())


def clear_parent(study: optuna.Study) -> None:
    """Record the end of the run, unless another process has become the parent since."""
    own = StudyRow.parent_machine == machine(), StudyRow.parent_pid == os.getpid()
    with storage_of(study).transaction() as session:
        row = update(StudyRow).where(StudyRow.study_id == study_id(study), *own)
        session.connection().execute(row.values(parent_machine=None, parent_pid=None, parent_start=None))


def requeue_failed(study: optuna.Study, *, search: bool = False) -> int:
    """Return the failed runs of the confirm and final stages to the queue; with `search`, failed trials of it too.

    They keep their numbers, by which the confirm stage finds its jobs, and resume from their checkpoints where these
    exist. Returns how many. Call this before another process, or Optuna's cache in this one, has read them.
    """
    own = study_id(study)
    with storage_of(study).transaction() as session:
        models.StudyModel.find_or_raise_by_id(own, session, for_update=True)
        studies = select(StudyRow.study_id).where(StudyRow.parent_id == own)
        of_study = models.TrialModel.study_id.in_(studies) | ((models.TrialModel.study_id == own) & search)
        failed = session.scalars(
            select(models.TrialModel).where(of_study, models.TrialModel.state == TrialState.FAIL)
        ).all()
        for trial in failed:
            trial.state, trial.datetime_complete = TrialState.WAITING, None
            attempt = _attribute(session, trial, ATTEMPT)
            session.execute(delete(LeaseRow).where(LeaseRow.trial_id == trial.trial_id))
            if attempt is not None:  # else it never started
                session.add(
                    LeaseRow(trial_id=trial.trial_id, attempt=int(json.loads(str(attempt.value_json))), deaths=0)
                )
            for key in (FAILURE, INFRASTRUCTURE):
                stored = _attribute(session, trial, key)
                if stored is not None:
                    session.delete(stored)
        return len(failed)


def _attribute(session: Session, trial: models.TrialModel, key: str) -> models.TrialUserAttributeModel | None:
    return models.TrialUserAttributeModel.find_by_trial_and_key(trial, key, session)


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
            raise StudyError(
                f"The study {study.study_name!r} has no budget: it was deleted meanwhile, or not created by hpo."
            )
        session.expunge(row)
        return row


def _update(study: optuna.Study, **values: object) -> None:
    with storage_of(study).transaction() as session:
        row = session.get(StudyRow, study_id(study), with_for_update=True)
        if row is None:
            raise StudyError(
                f"The study {study.study_name!r} has no budget: it was deleted meanwhile, or not created by hpo."
            )
        for name, value in values.items():
            setattr(row, name, value)
