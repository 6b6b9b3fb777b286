"""Returning the trials of dead workers to the queue: at once where the death is sure, else after a grace period."""

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

_watches: WeakKeyDictionary[Storage, dict[int, "HeartbeatMonitor"]] = WeakKeyDictionary()


def reclaim(
    storage: Storage,
    study: optuna.Study,
    grace_seconds: float = 60.0,
    dead: Collection[tuple[str, int]] = (),
    *,
    killed_by_us: bool = False,
) -> list[int]:
    """Poll once with the `HeartbeatMonitor` that this process keeps for the study. Call it repeatedly."""
    watches = _watches.setdefault(storage, {})
    watch = watches.setdefault(study_id(study), HeartbeatMonitor(study))
    watch.grace_seconds = grace_seconds
    return watch.poll(storage, dead, killed_by_us=killed_by_us)


@dataclass
class _LastHeartbeat:
    heartbeat: int
    silent_seconds: float = 0.0


class HeartbeatMonitor:
    """What one process saw of the beats of a study's workers, by its own monotonic clock.

    No time of another machine is read: no time zone or skew can make a worker look dead.
    """

    def __init__(self, study: optuna.Study, grace_seconds: float = 60.0) -> None:
        self.grace_seconds = grace_seconds
        self._study_id = study_id(study)
        self._sightings: dict[str, _LastHeartbeat] = {}
        self._last_poll: float | None = None

    def poll(
        self, storage: Storage, dead: Collection[tuple[str, int]] = (), *, killed_by_us: bool = False
    ) -> list[int]:
        """Look at the beats, and return the trials of dead workers to the queue. Returns those trials' numbers.

        A worker is dead when its process is known to be gone, on this machine or by `dead` (machine and process id
        of children whose end the caller saw); else when its beat did not change for the grace period. Each poll adds
        the time since the last one, but a third of the period at most, so that three or more polls must agree; and a
        poll that fails (raising `StorageError`) starts the count anew, so that after an outage nobody is taken for
        dead for having been cut off. Polls are writing transactions: where nobody can write, none succeeds.

        After three deaths without a newer checkpoint in between, a trial is FAIL, with the reason. Where a person
        had the processes of `dead` killed (`killed_by_us`), that is no death that a trial is to blame for.
        """
        try:
            with storage.transaction() as session:
                numbers = self._take_over(session, dead, killed_by_us)
        except Exception:  # whatever it was, nothing was seen this time: the count starts anew, and the caller is told
            self._sightings.clear()
            self._last_poll = None
            raise
        return numbers

    def _take_over(self, session: Session, dead: Collection[tuple[str, int]], killed_by_us: bool) -> list[int]:
        now = time.monotonic()
        passed = 0.0 if self._last_poll is None else min(now - self._last_poll, self.grace_seconds / 3)
        self._last_poll = now
        sightings: dict[str, _LastHeartbeat] = {}
        numbers = []
        for worker in self._workers(session):
            silent = self._look(f"worker {worker.worker_id}", worker.heartbeat, sightings, passed)
            known_dead = worker.ended or is_known_dead(worker.machine, worker.pid, worker.process_start)
            # The machine too: two of them give the same process id to different workers.
            seen_dead = (worker.machine, worker.pid) in dead
            named = seen_dead and not is_known_alive(worker.machine, worker.pid, worker.process_start)
            if known_dead or named or silent >= self.grace_seconds:
                numbers += _release(session, worker, blameless=killed_by_us and seen_dead)
        for trial in self._ownerless(session):
            if self._look(f"trial {trial.trial_id}", 0, sightings, passed) >= self.grace_seconds:
                trial.state = TrialState.WAITING
                session.add(LeaseRow(trial_id=trial.trial_id, attempt=1, deaths=0))
                numbers.append(int(trial.number))
        self._sightings = sightings
        return sorted(numbers)

    def _look(self, key: str, beat: int, sightings: dict[str, _LastHeartbeat], passed: float) -> float:
        """Note one beat in `sightings`; returns for how many seconds it has not changed."""
        last = self._sightings.get(key)
        silent = last.silent_seconds + passed if last is not None and last.heartbeat == beat else 0.0
        sightings[key] = _LastHeartbeat(beat, silent)
        return silent

    def _workers(self, session: Session) -> list[WorkerRow]:
        """The study's workers that live, as far as is known, or hold a trial."""
        holding = exists().where(LeaseRow.worker_id == WorkerRow.worker_id)
        return list(
            session.scalars(
                select(WorkerRow)
                .where(WorkerRow.study_id == self._study_id, holding | ~WorkerRow.ended)
                .order_by(WorkerRow.worker_id)
                .with_for_update()
            )
        )

    def _ownerless(self, session: Session) -> list[models.TrialModel]:
        """Running trials that no worker has a lease on: created by other means, then left."""
        leased = exists().where(LeaseRow.trial_id == Trials.trial_id)
        mine = select(Trials).where(Trials.study_id == self._study_id, Trials.state == TrialState.RUNNING, ~leased)
        return list(session.scalars(mine.order_by(Trials.trial_id).with_for_update()))


def _release(session: Session, worker: WorkerRow, blameless: bool) -> list[int]:
    """End a dead worker and return what it held to the queue; returns the numbers of those trials."""
    numbers = []
    held = select(LeaseRow).where(LeaseRow.worker_id == worker.worker_id).with_for_update()
    for lease in session.scalars(held).all():
        trial = session.get_one(Trials, lease.trial_id, with_for_update=True)
        if trial.state != TrialState.RUNNING:
            # Told by someone else, who knows nothing of leases, before the worker died.
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
