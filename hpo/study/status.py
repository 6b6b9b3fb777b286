"""What a study looks like right now, read with a few SQL statements so that 5,000 trials cost under a second."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import json_to_distribution
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from hpo.core.errors import StudyError, did_you_mean
from hpo.core.process import is_surely_dead
from hpo.study.budget import list_studies
from hpo.study.rules import FAILURE, count_taken
from hpo.study.storage import Storage
from hpo.study.tables import StudyRow, WorkerRow

# The user attribute of a study that names its metric.
METRIC = "metric"
# The user attribute of a trial that says how many layers its sampled share froze, as "4 of 6".
FROZEN_LAYERS = "frozen_layers"
# The user attribute of a trial that counts how many times it was handed out.
ATTEMPT = "attempt"
NEWEST_FAILURES = 5

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
    """One worker process, as its row in the database tells."""

    worker_id: int
    host: str
    pid: int
    device: str
    phase: str  # starting, search, confirm, retrain, waiting, gone
    trial: int | None = None
    step: int | None = None  # the last rung reported
    epoch: float | None = None
    epochs: int | None = None  # of the trial in hand
    beat_age: float | None = None  # seconds since its last beat, by the reader's clock; None when never seen twice


@dataclass(frozen=True)
class StudyStatus:
    """One study: how far it is, who works on it, and the best trial so far."""

    name: str
    metric: str
    direction: str  # maximize or minimize
    phase: str  # search, confirm, retrain, finished, stopped
    counts: dict[str, int]  # running, waiting, complete, pruned, failed
    max_trials: int  # those taken over from other studies included
    max_hours: float | None
    hours_run: float
    best_trial: int | None = None
    best_value: float | None = None
    best_params: dict[str, Any] = field(default_factory=dict)
    workers: tuple[WorkerStatus, ...] = ()
    confirm_done: int = 0
    confirm_total: int = 0
    resumed: int = 0  # trials that went on with another worker, or after a stop
    failures: tuple[tuple[int, str], ...] = ()  # trial number, reason: the newest few


def read_status(storage: Storage, name: str) -> StudyStatus:
    """The status of the study `name`, once. Raises `StudyError` where there is none."""
    return StatusReader(storage, name).read()


class StatusReader:
    """Reads the status of one study again and again, and so knows the age of each worker's last beat."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage = storage
        self._name = name
        self._beats: dict[int, tuple[int, float]] = {}  # beat, and when it was first seen

    def read(self) -> StudyStatus:
        """The study's status. Raises `StudyError` where there is none of that name."""
        with self._storage.reading() as session:
            found = session.execute(
                select(models.StudyModel.study_id, StudyRow)
                .outerjoin(StudyRow, StudyRow.study_id == models.StudyModel.study_id)
                .where(models.StudyModel.study_name == self._name)
            ).one_or_none()
            if found is None or found[1] is None:
                raise StudyError(self._unknown(found is not None))
            study_id, row = found
            counts = _counts(session, study_id)
            taken = count_taken(session, study_id)
            maximize = _direction(session, study_id) == StudyDirection.MAXIMIZE
            best_id, best_trial, best_value = _best(session, study_id, maximize)
            confirm_done, confirm_total = _confirm_counts(session, study_id)
            return StudyStatus(
                name=self._name,
                metric=_metric(session, study_id),
                direction="maximize" if maximize else "minimize",
                phase=row.phase,
                counts=counts,
                max_trials=sum(counts.values()) if row.max_trials is None else row.max_trials + taken,
                max_hours=None if row.max_seconds is None else row.max_seconds / 3600,
                hours_run=row.seconds_run / 3600,
                best_trial=best_trial,
                best_value=best_value,
                best_params={} if best_id is None else _params(session, best_id),
                workers=self._workers(session, study_id),
                confirm_done=confirm_done,
                confirm_total=confirm_total,
                resumed=_resumed(session, study_id),
                failures=_failures(session, study_id),
            )

    def _unknown(self, exists: bool) -> str:
        if exists:
            return f"The study {self._name!r} is in {self._storage}, but was not made by hpo."
        known = list_studies(self._storage)
        there = (
            f"There are: {', '.join(known[-10:])}." if known else "There is none yet: `hpo run STUDY.yaml` makes one."
        )
        return f"There is no study {self._name!r} in {self._storage}.{did_you_mean(self._name, known)} {there}"

    def _workers(self, session: Session, study_id: int) -> tuple[WorkerStatus, ...]:
        rows = session.scalars(
            select(WorkerRow).where(WorkerRow.study_id == study_id, ~WorkerRow.ended).order_by(WorkerRow.worker_id)
        ).all()
        return tuple(
            WorkerStatus(
                worker_id=row.worker_id,
                host=row.host,
                pid=row.pid,
                device=row.device,
                phase="gone" if is_surely_dead(row.machine, row.pid, row.process_start) else row.phase,
                trial=row.trial,
                step=row.step,
                epoch=row.epoch,
                epochs=row.epochs,
                beat_age=self._beat_age(row.worker_id, row.beat),
            )
            for row in rows
        )

    def _beat_age(self, worker_id: int, beat: int) -> float | None:
        last, since = self._beats.get(worker_id, (None, 0.0))
        now = time.monotonic()
        if last == beat:
            return now - since
        self._beats[worker_id] = (beat, now)
        return None if last is None else 0.0


def _counts(session: Session, study_id: int) -> dict[str, int]:
    rows = session.execute(
        select(Trials.state, func.count()).where(Trials.study_id == study_id).group_by(Trials.state)
    ).all()
    found = {_NAMES[state]: many for state, many in rows}
    return {name: found.get(name, 0) for name in _NAMES.values()}


def _direction(session: Session, study_id: int) -> StudyDirection | None:
    return session.scalar(
        select(models.StudyDirectionModel.direction)
        .where(models.StudyDirectionModel.study_id == study_id)
        .order_by(models.StudyDirectionModel.objective)
        .limit(1)
    )


def _metric(session: Session, study_id: int) -> str:
    attributes = models.StudyUserAttributeModel
    text = session.scalar(
        select(attributes.value_json).where(attributes.study_id == study_id, attributes.key == METRIC)
    )
    return "value" if text is None else str(json.loads(text))


def _best(session: Session, study_id: int, maximize: bool) -> tuple[int | None, int | None, float | None]:
    """The id, number and value of the best complete trial; of equals the earliest."""
    best = session.execute(
        select(Trials.trial_id, Trials.number, Values.value)
        .join(Values, and_(Values.trial_id == Trials.trial_id, Values.objective == 0))
        .where(
            Trials.study_id == study_id,
            Trials.state == TrialState.COMPLETE,
            Values.value_type == Values.TrialValueType.FINITE,
        )
        .order_by(Values.value.desc() if maximize else Values.value.asc(), Trials.trial_id)
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
    params = {name: json_to_distribution(text).to_external_repr(value) for name, value, text in rows}
    attributes = models.TrialUserAttributeModel
    frozen = session.scalar(
        select(attributes.value_json).where(attributes.trial_id == trial_id, attributes.key == FROZEN_LAYERS)
    )
    return params if frozen is None else {**params, FROZEN_LAYERS: json.loads(frozen)}


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
    many = session.scalar(
        select(func.count())
        .select_from(attempts)
        .join(Trials, Trials.trial_id == attempts.trial_id)
        .where(Trials.study_id == study_id, attempts.key == ATTEMPT, attempts.value_json != "1")
    )
    return many or 0


def _confirm_counts(session: Session, study_id: int) -> tuple[int, int]:
    """How many runs of the newest confirm study are over, and how many it has."""
    child = session.scalars(
        select(StudyRow)
        .where(StudyRow.parent_id == study_id, StudyRow.phase == "confirm")
        .order_by(StudyRow.study_id.desc())
        .limit(1)
    ).one_or_none()
    if child is None:
        return 0, 0
    counts = _counts(session, child.study_id)
    over = counts["complete"] + counts["pruned"] + counts["failed"]
    return over, sum(counts.values()) if child.max_trials is None else child.max_trials
