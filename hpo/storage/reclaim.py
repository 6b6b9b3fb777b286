"""Reclaim the trials of dead workers: at once if the process is known to be gone, else after a grace period."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import optuna
from optuna.trial import TrialState
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from hpo.core.process import is_known_alive, is_known_dead
from hpo.storage.models import LeaseRow, WorkerRow
from hpo.storage.optuna_internals import models, study_id
from hpo.storage.storage import Storage
from hpo.storage.transactions import record_death

Trials = models.TrialModel

_monitors: WeakKeyDictionary[Storage, dict[int, "HeartbeatMonitor"]] = WeakKeyDictionary()


def reclaim(
    storage: Storage,
    study: optuna.Study,
    grace_seconds: float = 60.0,
    dead: Collection[tuple[str, int]] = (),
    *,
    killed_by_us: bool = False,
) -> list[int]:
    """Poll once with the `HeartbeatMonitor` that this process keeps for the study. Call it repeatedly."""
    monitors = _monitors.setdefault(storage, {})
    monitor = monitors.setdefault(study_id(study), HeartbeatMonitor(study))
    monitor.grace_seconds = grace_seconds
    return monitor.poll(storage, dead, killed_by_us=killed_by_us)


@dataclass
class _LastHeartbeat:
    heartbeat: int
    silent_seconds: float = 0.0


class HeartbeatMonitor:
    """Observes the heartbeats of a study's workers by the monotonic clock of this process.

    It reads no clock of another machine, so that no time zone and no clock skew can make a worker look dead.
    """

    def __init__(self, study: optuna.Study, grace_seconds: float = 60.0) -> None:
        self.grace_seconds = grace_seconds
        self._study_id = study_id(study)
        self._last: dict[str, _LastHeartbeat] = {}
        self._last_poll: float | None = None

    def poll(
        self, storage: Storage, dead: Collection[tuple[str, int]] = (), *, killed_by_us: bool = False
    ) -> list[int]:
        """Read the heartbeats and return the trials of dead workers to the queue. Returns the numbers of these trials.

        A worker is dead if its process is known to be gone, on this machine or as one of `dead` (machine and process
        id of child processes that ended), or if its heartbeat did not change for the grace period. Each poll adds
        the time since the previous one, at most a third of the period, so that at least three polls must agree. A
        poll that fails (raising `StorageError`) resets the count: after an outage, no worker counts as dead because
        it was cut off. A poll is a writing transaction: while nobody can write, no poll succeeds.

        After three deaths without a newer checkpoint in between, a trial fails, with the reason. With
        `killed_by_us`, hpo killed the processes of `dead` on request, and their deaths are not counted.
        """
        try:
            with storage.transaction() as session:
                numbers = self._reclaim(session, dead, killed_by_us)
        except Exception:  # no heartbeat was read: reset the count
            self._last.clear()
            self._last_poll = None
            raise
        return numbers

    def _reclaim(self, session: Session, dead: Collection[tuple[str, int]], killed_by_us: bool) -> list[int]:
        now = time.monotonic()
        elapsed = 0.0 if self._last_poll is None else min(now - self._last_poll, self.grace_seconds / 3)
        self._last_poll = now
        current: dict[str, _LastHeartbeat] = {}
        numbers = []
        for worker in self._workers(session):
            silent = self._observe(f"worker {worker.worker_id}", worker.heartbeat, current, elapsed)
            known_dead = worker.ended or is_known_dead(worker.machine, worker.pid, worker.process_start)
            # With the machine: two machines use the same process id for different workers.
            reported_dead = (worker.machine, worker.pid) in dead
            child_dead = reported_dead and not is_known_alive(worker.machine, worker.pid, worker.process_start)
            if known_dead or child_dead or silent >= self.grace_seconds:
                numbers += _release(session, worker, blameless=killed_by_us and reported_dead)
        for trial in self._orphaned(session):
            if self._observe(f"trial {trial.trial_id}", 0, current, elapsed) >= self.grace_seconds:
                trial.state = TrialState.WAITING
                session.add(LeaseRow(trial_id=trial.trial_id, attempt=1, deaths=0))
                numbers.append(int(trial.number))
        self._last = current
        return sorted(numbers)

    def _observe(self, key: str, heartbeat: int, current: dict[str, _LastHeartbeat], elapsed: float) -> float:
        """Record one heartbeat in `current`. Returns the seconds for which it has not changed."""
        last = self._last.get(key)
        silent = last.silent_seconds + elapsed if last is not None and last.heartbeat == heartbeat else 0.0
        current[key] = _LastHeartbeat(heartbeat, silent)
        return silent

    def _workers(self, session: Session) -> list[WorkerRow]:
        """Return, locked, the study's workers that hold a trial or are not known to have ended."""
        holding = exists().where(LeaseRow.worker_id == WorkerRow.worker_id)
        return list(
            session.scalars(
                select(WorkerRow)
                .where(WorkerRow.study_id == self._study_id, holding | ~WorkerRow.ended)
                .order_by(WorkerRow.worker_id)
                .with_for_update()
            )
        )

    def _orphaned(self, session: Session) -> list[models.TrialModel]:
        """Return running trials without a lease: they were created by other programs and abandoned."""
        leased = exists().where(LeaseRow.trial_id == Trials.trial_id)
        running = select(Trials).where(Trials.study_id == self._study_id, Trials.state == TrialState.RUNNING, ~leased)
        return list(session.scalars(running.order_by(Trials.trial_id).with_for_update()))


def _release(session: Session, worker: WorkerRow, blameless: bool) -> list[int]:
    """Mark a dead worker as ended and return its trials to the queue. Returns the numbers of these trials."""
    numbers = []
    held = select(LeaseRow).where(LeaseRow.worker_id == worker.worker_id).with_for_update()
    for lease in session.scalars(held).all():
        trial = session.get_one(Trials, lease.trial_id, with_for_update=True)
        if trial.state != TrialState.RUNNING:
            # Another program, without leases, set its result before the worker died.
            if trial.state.is_finished():
                session.delete(lease)
            lease.worker_id = None
            continue
        numbers.append(int(trial.number))
        if blameless:
            lease.worker_id, trial.state = None, TrialState.WAITING
            continue
        last = f"worker {worker.worker_id} (process {worker.pid} on {worker.host}, {worker.device})"
        record_death(session, trial, lease, last)
    worker.ended, worker.phase, worker.trial = True, "gone", None
    return numbers
