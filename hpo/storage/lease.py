"""A worker: it claims one trial at a time under a lease, sends heartbeats, and finishes or releases the trial."""

import logging
import math
import os
import socket
import threading
import uuid
from typing import Any, TypedDict, Unpack

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy import delete, func, select, update

from hpo.core.process import machine, own_start
from hpo.errors.redact import redact
from hpo.storage.models import LeaseRow, WorkerRow
from hpo.storage.optuna_internals import clear_cached_trials, models, optuna_storage, study_id, tell_trial, trial_id
from hpo.storage.records.trial import TrialRecord
from hpo.storage.retry import MAX_OUTAGE_SECONDS, RetryPolicy, StorageUnavailable, retried
from hpo.storage.storage import Storage
from hpo.storage.transactions import (
    BudgetSpent,
    LeaseHolder,
    LeaseLost,
    StopRequested,
    check_lease,
    claim_waiting,
    is_stopped,
    record_death,
)

__all__ = ["LeaseLost", "Worker"]

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0


class Progress(TypedDict, total=False):
    """The progress that a worker displays. Keys that are not given keep their value."""

    phase: str  # starting, search, confirm, retrain, waiting
    trial: int | None
    step: int | None
    epoch: float | None
    epochs: int | None


class Worker:
    """A process that runs trials of a study, with a row in the database. It holds the storage's leases until closed.

    A thread sends a heartbeat once a second: it increments a counter, writes the progress and reads whether a stop
    was requested. The thread survives every error of the database, so that heartbeats continue after an outage.
    During an outage all methods retry, for an hour at most or until `stop` is set.
    """

    def __init__(self, storage: Storage, study: optuna.Study, device: str, stop: threading.Event | None = None) -> None:
        self.storage = storage
        self.stop_requested = False
        self._study_id = study_id(study)
        self._device = device
        self._progress: Progress = {}
        self._warning: str | None = None
        self._closed = threading.Event()
        self._holder = LeaseHolder(self._register(device))
        self.number = self._count_before()
        storage.set_lease_holder(self._holder, RetryPolicy(MAX_OUTAGE_SECONDS, stop))
        self._thread = threading.Thread(target=self._send_heartbeats, name="hpo-heartbeats", daemon=True)
        self._thread.start()

    def _register(self, device: str) -> int:
        with self.storage.transaction() as session:
            row = WorkerRow(
                token=uuid.uuid4().hex,
                study_id=self._study_id,
                host=socket.gethostname()[:255],
                machine=machine(),
                pid=os.getpid(),
                process_start=own_start(),
                device=device,
            )
            session.add(row)
            session.flush()
            return row.worker_id

    def _count_before(self) -> int:
        """Return how many workers the study had before this one: unlike an id, the same in any database."""
        with self.storage.reading() as session:
            earlier = WorkerRow.study_id == self._study_id, WorkerRow.worker_id < self.worker_id
            return session.scalar(select(func.count()).select_from(WorkerRow).where(*earlier)) or 0

    @property
    def retry_policy(self) -> RetryPolicy:
        """The retry policy of the storage."""
        return self.storage.retry_policy

    @property
    def worker_id(self) -> int:
        """The key of the worker's row."""
        return self._holder.worker_id

    @property
    def name(self) -> str:
        """The name to display, also after the worker has ended: `3 on gpu-box (cuda:0)`."""
        return f"{self._holder.worker_id} on {socket.gethostname()} ({self._device})"

    @property
    def attempt(self) -> int:
        """How often the current trial was claimed, including this time; 0 without a current trial."""
        return self._holder.attempt

    @property
    def checkpoint(self) -> str | None:
        """The path or URL of the current trial's last checkpoint; None without one."""
        return self._holder.checkpoint

    def progress(self, **values: Unpack[Progress]) -> None:
        """Update the progress. The next heartbeat writes it."""
        self._progress = {**self._progress, **values}

    def warn(self, text: str) -> None:
        """Log a problem that fails no trial and show it in the status, once the next heartbeat succeeds."""
        log.warning("%s", text)
        self._warning = text

    @retried
    def claim(self, study: optuna.Study) -> optuna.Trial | None:
        """Return the next trial, leased to this worker; None if no trial waits and none may be started.

        The order is: released and orphaned trials, the oldest first; enqueued trials in their order; a new trial if
        the budget allows one. Each trial goes to one worker only. A trial that this worker holds already is returned
        again. If a stop was requested, returns None and sets `stop_requested`.
        """
        try:
            trial_id = self._claim_waiting(study)
            if trial_id is None:
                trial_id = self._create_trial(study)
        except StopRequested:
            self.stop_requested = True
            return None
        if trial_id is None:
            return None
        # As `Study.ask` does, which would look for waiting trials itself.
        clear_cached_trials(study)
        trial = optuna.Trial(study, trial_id)
        self.progress(trial=trial.number, step=None, epoch=None, epochs=None)
        return trial

    def _create_trial(self, study: optuna.Study) -> int | None:
        """Create a trial and return its id; None if the budget is spent."""
        try:
            return optuna_storage(study).create_new_trial(study_id(study))
        except StopRequested:
            raise
        except BudgetSpent:
            return None

    def _claim_waiting(self, study: optuna.Study) -> int | None:
        """Claim the waiting trial that is next and return its id; None if no trial waits."""
        with self.storage.transaction() as session:
            row = session.get(WorkerRow, self.worker_id)
            if row is not None:
                row.ended = False  # else a worker that was suspended and assumed dead would lose its next trial at once
            trial_id = claim_waiting(session, study_id(study), self._holder)
        if trial_id is not None:  # read it into Optuna's cache
            optuna_storage(study).get_all_trials(study_id(study), deepcopy=False, states=(TrialState.RUNNING,))
        return trial_id

    def record_checkpoint(self, trial: optuna.Trial, location: str) -> None:
        """Record that the trial can be resumed from `location` (a path or URL). Raises `LeaseLost`.

        During an outage nothing is written and the training continues; a later checkpoint is recorded instead.
        """
        self._holder.checkpoint = location
        if self.storage.is_unavailable:
            return
        try:
            with self.storage.transaction() as session:
                lease = check_lease(session, trial_id(trial), self._holder)
                lease.checkpoint, lease.deaths = location, 0
        except StorageUnavailable as error:
            log.warning("trial %d continues, but its checkpoint was not recorded: %s", trial.number, error)

    @retried
    def release(self, trial: optuna.Trial, checkpoint: str | None = None, worker_failure: str | None = None) -> None:
        """Return the trial to the queue with its number, parameters and reports. Raises `LeaseLost`.

        `worker_failure` is the reason why this worker ends, if it fails: it counts as a death of the trial's worker.
        """
        self.storage.send_reports()
        with self.storage.transaction() as session:
            lease = check_lease(session, trial_id(trial), self._holder)
            row = session.get_one(models.TrialModel, trial_id(trial))
            if worker_failure is not None:
                record_death(
                    session, row, lease, f"worker {self.worker_id} on {socket.gethostname()}: {redact(worker_failure)}"
                )
            else:
                lease.worker_id = None
                row.state = TrialState.WAITING
            if checkpoint is not None:
                lease.checkpoint, lease.deaths = checkpoint, 0
        self._clear_trial()

    def finish(self, study: optuna.Study, trial: optuna.Trial, state: TrialState, value: float | None = None) -> bool:
        """Write the trial's result. If another process has written one before, keep that and log this one.

        Returns whether the sampler stopped the study, because it has sampled everything.

        A value that is not finite makes the trial FAIL, because Optuna would rank infinity as the best value. Raises
        `LeaseLost` if another worker holds the trial now.
        """
        try:
            if state == TrialState.COMPLETE and (value is None or not math.isfinite(value)):
                TrialRecord(failure=f"its value was {value}").save(trial)
                state, value = TrialState.FAIL, None
            exhausted = self._tell(study, trial, state, value)
        except LeaseLost:
            stored = self.storage.get_trial(trial_id(trial))
            self._clear_trial()
            if not stored.state.is_finished():
                raise
            if stored.state == state and value in (None, stored.value):
                return False  # written by this call: its response was lost in an outage
            log.warning(
                "trial %d was set to %s by another process; the result of this worker, %s %s, is dropped",
                *(trial.number, stored.state.name, state.name, "" if value is None else value),
            )
            self._delete_lease(trial_id(trial))
            return False
        self._clear_trial()
        return exhausted

    def _tell(self, study: optuna.Study, trial: optuna.Trial, state: TrialState, value: float | None) -> bool:
        self._send_reports()  # Optuna takes a pruned trial's value from its last report
        try:
            return tell_trial(study, trial, value, state)
        except (ValueError, UpdateFinishedTrialError):
            self._check(trial)  # if the lease was lost, raise `LeaseLost` instead
            raise

    @retried
    def _send_reports(self) -> None:
        self.storage.send_reports()

    @retried
    def _check(self, trial: optuna.Trial) -> None:
        with self.storage.transaction() as session:
            check_lease(session, trial_id(trial), self._holder)

    def close(self) -> None:
        """Release the current trial, if any, mark the row as ended and remove the lease holder from the storage."""
        self._closed.set()
        self._thread.join(timeout=5)
        self.storage.set_lease_holder(None)
        with self.storage.transaction() as session:
            # Locked first, as `HeartbeatMonitor` does: on servers, two different lock orders would deadlock.
            row = session.get(WorkerRow, self.worker_id, with_for_update=True)
            for lease in session.scalars(select(LeaseRow).where(LeaseRow.worker_id == self.worker_id)):
                lease.worker_id = None
                trial = session.get_one(models.TrialModel, lease.trial_id)
                if trial.state == TrialState.RUNNING:
                    trial.state = TrialState.WAITING
            if row is not None:  # None: the study was deleted
                row.ended, row.phase, row.warning = True, "gone", self._warning
                row.trial = row.step = row.epoch = row.epochs = None
        self._holder.clear()

    def _clear_trial(self) -> None:
        self._holder.clear()
        self.progress(trial=None, step=None, epoch=None, epochs=None)

    @retried
    def _delete_lease(self, trial_id: int) -> None:
        with self.storage.transaction() as session:
            session.execute(delete(LeaseRow).where(LeaseRow.trial_id == trial_id, LeaseRow.worker_id == self.worker_id))

    def _send_heartbeats(self) -> None:
        failing = False
        while not self._closed.wait(HEARTBEAT_SECONDS):
            try:
                self._send_heartbeat()
            except Exception as error:
                # Of any kind: if this thread ended, the trial of a running worker would be reclaimed.
                self.storage.is_unavailable = isinstance(error, StorageUnavailable)
                if not failing:
                    log.warning("worker %d cannot send its heartbeat; retrying: %s", self.worker_id, error)
                failing = True
            else:
                self.storage.is_unavailable = False
                if failing:
                    log.warning("worker %d sends heartbeats again", self.worker_id)
                failing = False
        self.storage.remove_session()

    def _send_heartbeat(self) -> None:
        # One statement under one lock: the heartbeats of 16 workers cost a server as much as all their reports.
        shown: dict[str, Any] = {**self._progress, "warning": self._warning, "ended": False}  # see `_claim_waiting`
        row = update(WorkerRow).where(WorkerRow.worker_id == self.worker_id)
        with self.storage.transaction() as session:
            result = session.connection().execute(
                row.values(heartbeat=WorkerRow.heartbeat + 1, heartbeat_at=func.now(), **shown)
            )
            # No row: the study was deleted.
            stop = result.rowcount == 0 or is_stopped(session, self._study_id)
        self.stop_requested = stop
