"""The rules of budget and lease, each one to be applied inside the caller's own writing transaction.

HpoError
├── BudgetSpent    no trial may be started any more
└── LeaseLost      the trial is another worker's by now, or finished: drop its result and take the next
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

# A failed trial with this user attribute was failed by the infrastructure: the budget does not count it.
INFRASTRUCTURE = "infrastructure"
# A trial with this user attribute was taken over from another study, which it names: the budget does not count it.
COPIED_FROM = "copied_from"
# The user attribute that holds a failed trial's reason, for people.
FAILURE = "failure"
# The user attribute that holds the number of rungs in a trial's own schedule: its last step if nothing ends it early.
RUNGS = "rungs"
# Ends of workers that a trial survives, without a checkpoint in between, plus one.
MAX_DEATHS = 3

Trials = models.TrialModel
Attributes = models.TrialUserAttributeModel


class BudgetSpent(HpoError):
    """The study's budget allows no further trial to be started."""


class StopRequested(BudgetSpent):
    """Someone asked the study, or its parent, to stop."""


class LeaseLost(HpoError):
    """The trial is not this worker's any more: what it still has to tell is refused."""


@dataclass
class LeaseHolder:
    """The worker for which a storage acts, and the one trial that it holds."""

    worker_id: int
    trial_id: int | None = None
    attempt: int = 0
    checkpoint: str | None = None

    def adopt(self, lease: LeaseRow) -> int:
        """Take note of a lease that is ours by now; returns the trial's id."""
        self.trial_id, self.attempt, self.checkpoint = lease.trial_id, lease.attempt, lease.checkpoint
        return lease.trial_id

    def clear(self) -> None:
        self.trial_id, self.attempt, self.checkpoint = None, 0, None


def check_lease(session: Session, trial_id: int, holder: LeaseHolder) -> LeaseRow:
    """Return the lease, locked, or raise `LeaseLost` unless `holder` still holds it at its attempt."""
    found = session.execute(
        select(LeaseRow, Trials.state)
        .join(Trials, Trials.trial_id == LeaseRow.trial_id)
        .where(LeaseRow.trial_id == trial_id)
        .with_for_update()
    ).one_or_none()
    if found is None:
        raise LeaseLost(f"Worker {holder.worker_id} holds no lease on the trial with id {trial_id}.")
    lease, state = found
    mine = trial_id == holder.trial_id and lease.worker_id == holder.worker_id and lease.attempt == holder.attempt
    if not mine:
        raise LeaseLost(
            f"The trial with id {trial_id} was taken from worker {holder.worker_id} "
            f"(attempt {holder.attempt}; it is at attempt {lease.attempt} by now)."
        )
    if state != TrialState.RUNNING:
        raise LeaseLost(f"Someone else made the trial with id {trial_id} {state.name}.")
    return lease


def lease_of(session: Session, study_id: int, holder: LeaseHolder) -> LeaseRow | None:
    """The running trial of the study that `holder` has already: its reservation, when the answer to it got lost."""
    return session.scalars(
        select(LeaseRow)
        .join(Trials, Trials.trial_id == LeaseRow.trial_id)
        .where(Trials.study_id == study_id, Trials.state == TrialState.RUNNING, LeaseRow.worker_id == holder.worker_id)
        .order_by(Trials.trial_id)
        .limit(1)
    ).one_or_none()


def is_stopped(session: Session, study_id: int) -> bool:
    """Whether a stop was requested of the study or of its parent."""
    parent = select(StudyRow.parent_id).where(StudyRow.study_id == study_id).scalar_subquery()
    asked = select(func.count()).where(
        (StudyRow.study_id == study_id) | (StudyRow.study_id == parent), StudyRow.stop_requested
    )
    return bool(session.scalar(asked))


def _check_stop(session: Session, study_id: int) -> None:
    if is_stopped(session, study_id):
        raise StopRequested("A stop of the study was requested.")


def check_budget(session: Session, study_id: int, *, queued: bool = False) -> None:
    """Raise `BudgetSpent` unless one more trial may be started. The study's row must be locked by the caller.

    A trial counts from its creation, whatever becomes of it, unless the infrastructure failed it. A trial that
    waits in the queue and was never begun counts too, except where the question is whether to begin one
    (`queued`): a queue longer than the budget is worked on until the budget is spent.
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
    """How many trials the budget counts: all but those that the infrastructure failed, or that were taken over."""
    all_trials = session.scalar(select(func.count(Trials.trial_id)).where(Trials.study_id == study_id))
    failed = (Trials.state == TrialState.FAIL) & (Attributes.key == INFRASTRUCTURE)
    excused = session.scalar(
        select(func.count(Trials.trial_id))
        .join(Attributes, Attributes.trial_id == Trials.trial_id)
        .where(Trials.study_id == study_id, failed | (Attributes.key == COPIED_FROM))
    )
    return (all_trials or 0) - (excused or 0)


def count_copied(session: Session, study_id: int) -> int:
    """How many trials were taken over from other studies."""
    taken = (
        select(func.count())
        .select_from(Attributes)
        .join(Trials, Trials.trial_id == Attributes.trial_id)
        .where(Trials.study_id == study_id, Attributes.key == COPIED_FROM)
    )
    return session.scalar(taken) or 0


def count_queued(session: Session, study_id: int) -> int:
    """How many trials wait in the queue and were never begun."""
    return session.scalar(select(func.count(Trials.trial_id)).where(*_queued(study_id))) or 0


def claim_waiting(session: Session, study_id: int, holder: LeaseHolder) -> int | None:
    """Hand out one waiting trial: one that was given back or orphaned, else the next of the queue.

    The oldest comes first. The trial is RUNNING and leased to `holder` at a new attempt when the caller's transaction
    is committed.
    Returns the trial's id, or None where nothing waits or may be begun. Raises `StopRequested`.
    """
    # The lock under which Optuna creates trials: on servers it puts all takers of a study in a row.
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
    """Return a running trial whose worker died to the queue; at the third death without a newer checkpoint, FAIL it.

    `last` says which worker died, and of what if that is known.
    """
    lease.worker_id = None
    lease.deaths += 1
    if lease.deaths < MAX_DEATHS:
        trial.state = TrialState.WAITING
        return
    trial.state = TrialState.FAIL
    trial.datetime_complete = datetime.now()
    reason = json.dumps(f"{MAX_DEATHS} workers died on it without a new checkpoint in between; the last was {last}")
    noted = Attributes.find_by_trial_and_key(trial, FAILURE, session)
    if noted is None:
        session.add(Attributes(trial_id=trial.trial_id, key=FAILURE, value_json=reason))
    else:
        noted.value_json = reason
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
