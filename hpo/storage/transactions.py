"""The rules of budget and lease. Each function runs inside the writing transaction of its caller.

HpoError
├── BudgetSpent          no further trial may be started
│   └── StopRequested    a stop of the study was requested
└── LeaseLost            another worker holds the trial, or it is finished: drop the result, claim the next trial
"""

import json
from dataclasses import dataclass
from datetime import datetime

from optuna.trial import TrialState
from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from hpo.errors import HpoError
from hpo.storage.models import LeaseRow, StudyRow
from hpo.storage.optuna_internals import models
from hpo.storage.records.trial import COPIED_FROM, FAILURE, INFRASTRUCTURE

# A trial fails when this many workers died while running it, without a new checkpoint in between.
MAX_DEATHS = 3

Trials = models.TrialModel
Attributes = models.TrialUserAttributeModel


class BudgetSpent(HpoError):
    """The study's budget allows no further trial to be started."""


class StopRequested(BudgetSpent):
    """A stop of the study or of its parent was requested."""


class LeaseLost(HpoError):
    """The worker no longer holds the trial: its writes are rejected."""


@dataclass
class LeaseHolder:
    """The worker that uses a storage, and the one trial that it holds."""

    worker_id: int
    trial_id: int | None = None
    attempt: int = 0
    checkpoint: str | None = None

    def adopt(self, lease: LeaseRow) -> int:
        """Hold the trial of `lease`. Returns the trial's id."""
        self.trial_id, self.attempt, self.checkpoint = lease.trial_id, lease.attempt, lease.checkpoint
        return lease.trial_id

    def clear(self) -> None:
        """Hold no trial."""
        self.trial_id, self.attempt, self.checkpoint = None, 0, None


def check_lease(session: Session, trial_id: int, holder: LeaseHolder) -> LeaseRow:
    """Return the lease, locked. Raises `LeaseLost` unless `holder` still holds it at its attempt."""
    found = session.execute(
        select(LeaseRow, Trials.state)
        .join(Trials, Trials.trial_id == LeaseRow.trial_id)
        .where(LeaseRow.trial_id == trial_id)
        .with_for_update()
    ).one_or_none()
    if found is None:
        raise LeaseLost(f"Worker {holder.worker_id} holds no lease on the trial with id {trial_id}.")
    lease, state = found
    held = trial_id == holder.trial_id and lease.worker_id == holder.worker_id and lease.attempt == holder.attempt
    if not held:
        raise LeaseLost(
            f"The trial with id {trial_id} was reclaimed from worker {holder.worker_id} "
            f"(attempt {holder.attempt}; the trial is at attempt {lease.attempt})."
        )
    if state != TrialState.RUNNING:
        raise LeaseLost(f"Another process set the trial with id {trial_id} to {state.name}.")
    return lease


def lease_of(session: Session, study_id: int, holder: LeaseHolder) -> LeaseRow | None:
    """Return the lease that `holder` has already: the database's response to its claim may have been lost."""
    return session.scalars(
        select(LeaseRow)
        .join(Trials, Trials.trial_id == LeaseRow.trial_id)
        .where(Trials.study_id == study_id, Trials.state == TrialState.RUNNING, LeaseRow.worker_id == holder.worker_id)
        .order_by(Trials.trial_id)
        .limit(1)
    ).one_or_none()


def is_stopped(session: Session, study_id: int) -> bool:
    """Return whether a stop of the study or of its parent was requested."""
    parent = select(StudyRow.parent_id).where(StudyRow.study_id == study_id).scalar_subquery()
    requests = select(func.count()).where(
        (StudyRow.study_id == study_id) | (StudyRow.study_id == parent), StudyRow.stop_requested
    )
    return bool(session.scalar(requests))


def _check_stop(session: Session, study_id: int) -> None:
    if is_stopped(session, study_id):
        raise StopRequested("A stop of the study was requested.")


def check_budget(session: Session, study_id: int, *, queued: bool = False) -> None:
    """Raise `BudgetSpent` unless one more trial may be started. The study's row must be locked by the caller.

    A trial counts from its creation, whatever its outcome, unless the infrastructure failed it. Enqueued trials that
    have not started count too, except with `queued`, which checks whether one of them may start: a queue longer than
    the budget is processed until the budget is spent.
    """
    _check_stop(session, study_id)
    study = session.get(StudyRow, study_id)
    if study is None:
        return
    if study.max_seconds is not None and study.seconds_run >= study.max_seconds:
        raise BudgetSpent(f"The study has run for its {study.max_seconds / 3600:g} hours.")
    if study.max_trials is None:
        return
    counted = count_reserved(session, study_id) - (count_queued(session, study_id) if queued else 0)
    if counted >= study.max_trials:
        raise BudgetSpent(f"The study's budget of {study.max_trials} trials is spent.")


def count_reserved(session: Session, study_id: int) -> int:
    """Return how many trials the budget counts: all except copied ones and those that the infrastructure failed."""
    all_trials = session.scalar(select(func.count(Trials.trial_id)).where(Trials.study_id == study_id))
    failed = (Trials.state == TrialState.FAIL) & (Attributes.key == INFRASTRUCTURE)
    excluded = session.scalar(
        select(func.count(Trials.trial_id))
        .join(Attributes, Attributes.trial_id == Trials.trial_id)
        .where(Trials.study_id == study_id, failed | (Attributes.key == COPIED_FROM))
    )
    return (all_trials or 0) - (excluded or 0)


def count_copied(session: Session, study_id: int) -> int:
    """Return how many trials were copied from other studies."""
    copied = (
        select(func.count())
        .select_from(Attributes)
        .join(Trials, Trials.trial_id == Attributes.trial_id)
        .where(Trials.study_id == study_id, Attributes.key == COPIED_FROM)
    )
    return session.scalar(copied) or 0


def count_queued(session: Session, study_id: int) -> int:
    """Return how many enqueued trials have not started."""
    return session.scalar(select(func.count(Trials.trial_id)).where(*_queued(study_id))) or 0


def claim_waiting(session: Session, study_id: int, holder: LeaseHolder) -> int | None:
    """Claim the oldest released or orphaned trial, else the next enqueued one, and return its id.

    Once the transaction of the caller is committed, the trial is RUNNING and leased to `holder` at a new attempt.
    Returns None if no trial waits or none may start. Raises `StopRequested`.
    """
    # The lock under which Optuna creates trials: on servers it serializes the claims of a study.
    models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
    _check_stop(session, study_id)
    lease = lease_of(session, study_id, holder)
    if lease is not None:
        return holder.adopt(lease)
    lease = session.scalars(
        select(LeaseRow)
        .join(Trials, Trials.trial_id == LeaseRow.trial_id)
        .where(Trials.study_id == study_id, Trials.state == TrialState.WAITING)
        .order_by(Trials.trial_id)
        .limit(1)
        .with_for_update()
    ).one_or_none()
    lease = lease or _next_queued(session, study_id)
    if lease is None:
        return None
    session.get_one(Trials, lease.trial_id).state = TrialState.RUNNING
    lease.worker_id = holder.worker_id
    lease.attempt += 1
    return holder.adopt(lease)


def record_death(session: Session, trial: models.TrialModel, lease: LeaseRow, last: str) -> None:
    """Return a trial whose worker died to the queue, or fail it at the third death without a newer checkpoint.

    `last` describes the worker that died, with the cause if it is known.
    """
    lease.worker_id = None
    lease.deaths += 1
    if lease.deaths < MAX_DEATHS:
        trial.state = TrialState.WAITING
        return
    trial.state = TrialState.FAIL
    trial.datetime_complete = datetime.now()
    reason = json.dumps(f"{MAX_DEATHS} workers died on it without a new checkpoint in between; the last was {last}")
    stored = Attributes.find_by_trial_and_key(trial, FAILURE, session)
    if stored is None:
        session.add(Attributes(trial_id=trial.trial_id, key=FAILURE, value_json=reason))
    else:
        stored.value_json = reason
    session.delete(lease)


def _next_queued(session: Session, study_id: int) -> LeaseRow | None:
    trial = session.scalars(
        select(Trials).where(*_queued(study_id)).order_by(Trials.trial_id).limit(1).with_for_update()
    ).one_or_none()
    if trial is None:
        return None
    try:
        check_budget(session, study_id, queued=True)
    except BudgetSpent:
        return None
    trial.datetime_start = datetime.now()
    lease = LeaseRow(trial_id=trial.trial_id, attempt=0, deaths=0)
    session.add(lease)
    return lease


def _queued(study_id: int) -> tuple[ColumnElement[bool], ...]:
    return (
        Trials.study_id == study_id,
        Trials.state == TrialState.WAITING,
        ~exists().where(LeaseRow.trial_id == Trials.trial_id),
    )
