"""The current status of a study, read with a few SQL statements: under a second for 5,000 trials."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from hpo.core.cache import DiskUse, disk_use
from hpo.core.direction import Direction, higher_is_better
from hpo.core.process import is_known_dead
from hpo.errors import StudyError, did_you_mean
from hpo.storage.budget import list_studies
from hpo.storage.models import LeaseRow, StudyRow, WorkerRow
from hpo.storage.optuna_internals import models
from hpo.storage.records.study import CONFIG, IDENTITY, METRIC
from hpo.storage.records.trial import ATTEMPT, FAILURE, FROZEN_LAYERS, SPREAD
from hpo.storage.storage import Storage
from hpo.storage.transactions import count_copied

NEWEST_FAILURES = 5
ACTIVE_PHASES = ("search", "confirm", "retrain")
ABSENT_SECONDS = 60.0  # since the heartbeat of a worker on a machine that cannot be asked whether it lives

_NAMES = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}

Trials = models.TrialModel
Values = models.TrialValueModel


@dataclass(frozen=True)
class WorkerStatus:
    """A worker process, as of its row in the database."""

    worker_id: int
    host: str
    pid: int
    device: str
    phase: str  # starting, search, confirm, retrain, waiting, gone
    trial: int | None = None
    attempt: int | None = None  # how often the current trial was claimed
    step: int | None = None  # the last rung reported
    epoch: float | None = None
    epochs: int | None = None  # of the current trial
    heartbeat_age: float = 0.0  # seconds since the last heartbeat, by the database's clock


@dataclass(frozen=True)
class StudyStatus:
    """The progress of a study, its workers, and its best trial so far."""

    name: str
    metric: str
    direction: Direction
    phase: str  # search, confirm, retrain, finished, stopped, failed; interrupted: nobody works on it any more
    counts: dict[str, int]  # running, waiting, complete, pruned, failed
    max_trials: int  # including those copied from other studies
    max_hours: float | None
    hours_run: float
    reason: str | None = None  # of the phase, where it is an error
    best_trial: int | None = None
    best_value: float | None = None
    best_params: dict[str, Any] = field(default_factory=dict)
    best_spread: float | None = None  # standard deviation of the best value between folds; None without folds
    workers: tuple[WorkerStatus, ...] = ()
    confirm_done: int = 0
    confirm_total: int = 0
    resumed: int = 0  # trials that another worker continued, or the same one after a stop
    failures: tuple[tuple[int, str], ...] = ()  # trial number, reason: the newest few
    warnings: tuple[str, ...] = ()  # problems reported by workers that fail no trial
    disk: DiskUse | None = None  # None if it was not measured


def read_status(storage: Storage, name: str, *, disk: bool = False) -> StudyStatus:
    """Return the status of the study `name`, with `disk` its disk use here too. Raises `StudyError` for no study."""
    with storage.reading() as session:
        found = session.execute(
            select(models.StudyModel.study_id, StudyRow)
            .outerjoin(StudyRow, StudyRow.study_id == models.StudyModel.study_id)
            .where(models.StudyModel.study_name == name)
        ).one_or_none()
        if found is None or found[1] is None:
            raise StudyError(_unknown(storage, name, exists=found is not None))
        study_id, row = found
        counts = _counts(session, study_id)
        copied = count_copied(session, study_id)
        direction = _direction(session, study_id)
        best_id, best_trial, best_value = _best(session, study_id, direction)
        confirm_done, confirm_total = _confirm_counts(session, study_id)
        workers, warnings = _workers(session, study_id)
        metric = _metric(session, study_id)
        attributes = {} if best_id is None else _trial_attributes(session, best_id, (FROZEN_LAYERS, SPREAD))
        spread = attributes.pop(SPREAD, {})
        best_params = {} if best_id is None else {**_params(session, best_id), **attributes}
        return StudyStatus(
            name=name,
            metric=metric,
            direction=direction,
            phase=_phase(row, workers),
            reason=row.phase_reason,
            counts=counts,
            max_trials=sum(counts.values()) if row.max_trials is None else row.max_trials + copied,
            max_hours=None if row.max_seconds is None else row.max_seconds / 3600,
            hours_run=row.seconds_run / 3600,
            best_trial=best_trial,
            best_value=best_value,
            best_params=best_params,
            best_spread=spread.get(metric),
            workers=workers,
            confirm_done=confirm_done,
            confirm_total=confirm_total,
            resumed=_resumed(session, study_id),
            failures=_failures(session, study_id),
            warnings=warnings,
            disk=_disk_use(session, study_id, name) if disk else None,
        )


def _phase(row: StudyRow, workers: Sequence[WorkerStatus]) -> str:
    """Return the phase that was recorded last, or `interrupted` if neither `hpo run` nor a worker is there for it."""
    if row.phase not in ACTIVE_PHASES or any(worker.heartbeat_age < ABSENT_SECONDS for worker in workers):
        return row.phase
    if row.parent_machine is None or row.parent_pid is None:
        return "interrupted"
    gone = is_known_dead(row.parent_machine, row.parent_pid, row.parent_start or "")
    return "interrupted" if gone else row.phase


def _unknown(storage: Storage, name: str, exists: bool) -> str:
    if exists:
        return f"The study {name!r} is in {storage}, but was not created by hpo."
    known = list_studies(storage)
    there = f"There are: {', '.join(known[-10:])}." if known else "There is none yet: `hpo run STUDY.yaml` creates one."
    return f"There is no study {name!r} in {storage}.{did_you_mean(name, known)} {there}"


def _workers(session: Session, study_id: int) -> tuple[tuple[WorkerStatus, ...], tuple[str, ...]]:
    """Return the workers that have not ended, and the warnings of all workers."""
    rows = session.execute(
        select(WorkerRow, LeaseRow.attempt, func.now())
        .outerjoin(LeaseRow, LeaseRow.worker_id == WorkerRow.worker_id)
        .where(WorkerRow.study_id == study_id, ~WorkerRow.ended | WorkerRow.warning.is_not(None))
        .order_by(WorkerRow.worker_id)
    ).all()
    workers = {
        row.worker_id: WorkerStatus(
            worker_id=row.worker_id,
            host=row.host,
            pid=row.pid,
            device=row.device,
            phase="gone" if is_known_dead(row.machine, row.pid, row.process_start) else row.phase,
            trial=row.trial,
            attempt=attempt,
            step=row.step,
            epoch=row.epoch,
            epochs=row.epochs,
            # PostgreSQL returns its time with a zone, which is UTC as for the other databases.
            heartbeat_age=max(0.0, (now.replace(tzinfo=None) - row.heartbeat_at).total_seconds()),
        )
        for row, attempt, now in rows
        if not row.ended
    }
    return tuple(workers.values()), tuple(dict.fromkeys(row.warning for row, *_ in rows if row.warning))


def _counts(session: Session, study_id: int) -> dict[str, int]:
    rows = session.execute(
        select(Trials.state, func.count()).where(Trials.study_id == study_id).group_by(Trials.state)
    ).all()
    found = {_NAMES[state]: number for state, number in rows}
    return {name: found.get(name, 0) for name in _NAMES.values()}


def _direction(session: Session, study_id: int) -> Direction:
    stored = session.scalar(
        select(models.StudyDirectionModel.direction)
        .where(models.StudyDirectionModel.study_id == study_id)
        .order_by(models.StudyDirectionModel.objective)
        .limit(1)
    )
    return "maximize" if stored == StudyDirection.MAXIMIZE else "minimize"


def _metric(session: Session, study_id: int) -> str:
    attributes = models.StudyUserAttributeModel
    key = attributes.key == METRIC
    text = session.scalar(select(attributes.value_json).where(attributes.study_id == study_id, key))
    return "value" if text is None else str(json.loads(text))


def _disk_use(session: Session, study_id: int, name: str) -> DiskUse:
    """Return the disk use of a study here, from where its configuration keeps checkpoints."""
    attributes = models.StudySystemAttributeModel
    keys = attributes.key.in_((CONFIG, IDENTITY))
    rows = session.execute(select(attributes.key, attributes.value_json).where(attributes.study_id == study_id, keys))
    found = {key: json.loads(text) for key, text in rows}
    return disk_use(name, found.get(IDENTITY, ""), found.get(CONFIG, {}).get("checkpoints"))


def _best(session: Session, study_id: int, direction: Direction) -> tuple[int | None, int | None, float | None]:
    """Return id, number and value of the best complete trial, the earliest of equal ones."""
    best = session.execute(
        select(Trials.trial_id, Trials.number, Values.value)
        .join(Values, and_(Values.trial_id == Trials.trial_id, Values.objective == 0))
        .where(
            Trials.study_id == study_id,
            Trials.state == TrialState.COMPLETE,
            Values.value_type == Values.TrialValueType.FINITE,
        )
        .order_by(Values.value.desc() if higher_is_better(direction) else Values.value.asc(), Trials.trial_id)
        .limit(1)
    ).one_or_none()
    return (None, None, None) if best is None else (best[0], best[1], best[2])


def _params(session: Session, trial_id: int) -> dict[str, Any]:
    rows = session.execute(
        select(
            models.TrialParamModel.param_name,
            models.TrialParamModel.param_value,
            models.TrialParamModel.distribution_json,
        )
        .where(models.TrialParamModel.trial_id == trial_id)
        .order_by(models.TrialParamModel.param_id)
    )
    return {name: json_to_distribution(text).to_external_repr(value) for name, value, text in rows}


def _trial_attributes(session: Session, trial_id: int, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return those of these user attributes that the trial has."""
    attributes = models.TrialUserAttributeModel
    rows = session.execute(
        select(attributes.key, attributes.value_json).where(attributes.trial_id == trial_id, attributes.key.in_(keys))
    )
    return {key: json.loads(text) for key, text in rows}


def _failures(session: Session, study_id: int) -> tuple[tuple[int, str], ...]:
    reasons = models.TrialUserAttributeModel
    rows = session.execute(
        select(Trials.number, reasons.value_json)
        .outerjoin(reasons, and_(reasons.trial_id == Trials.trial_id, reasons.key == FAILURE))
        .where(Trials.study_id == study_id, Trials.state == TrialState.FAIL)
        .order_by(Trials.trial_id.desc())
        .limit(NEWEST_FAILURES)
    )
    return tuple((number, "no reason was recorded" if text is None else str(json.loads(text))) for number, text in rows)


def _resumed(session: Session, study_id: int) -> int:
    attempts = models.TrialUserAttributeModel
    number = session.scalar(
        select(func.count())
        .select_from(attempts)
        .join(Trials, Trials.trial_id == attempts.trial_id)
        .where(Trials.study_id == study_id, attempts.key == ATTEMPT, attempts.value_json != "1")
    )
    return number or 0


def _confirm_counts(session: Session, study_id: int) -> tuple[int, int]:
    """Return how many trials of the newest confirm study are finished, and how many it has."""
    child = session.scalars(
        select(StudyRow)
        .where(StudyRow.parent_id == study_id, StudyRow.phase == "confirm")
        .order_by(StudyRow.study_id.desc())
        .limit(1)
    ).one_or_none()
    if child is None:
        return 0, 0
    counts = _counts(session, child.study_id)
    finished = counts["complete"] + counts["pruned"] + counts["failed"]
    return finished, sum(counts.values()) if child.max_trials is None else child.max_trials
