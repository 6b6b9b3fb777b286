"""A worker's side of a lease: it takes one trial at a time, beats to show that it lives, and ends or returns it."""

import logging
import math
import os
import socket
import threading
import uuid
from collections.abc import Callable
from functools import wraps
from typing import Any, TypedDict, TypeVar, Unpack

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy import delete, func, select, update

from hpo.core.process import machine, own_start
from hpo.storage.models import LeaseRow, WorkerRow
from hpo.storage.optuna_internals import clear_cached_trials, models, optuna_storage, study_id, trial_id
from hpo.storage.retry import MAX_OUTAGE_SECONDS, RetryPolicy, StorageUnavailable
from hpo.storage.storage import Storage
from hpo.storage.transactions import (
    FAILURE,
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


Method = TypeVar("Method", bound=Callable[..., Any])


def _retried(method: Method) -> Method:
    """The method, whole transactions of it, carried out again while the database is away."""

    @wraps(method)
    def retried(self: "Worker", *args: Any, **kwargs: Any) -> Any:
        return self.storage.retry_policy.call(lambda: method(self, *args, **kwargs))

    return retried  # type: ignore[return-value]


class Progress(TypedDict, total=False):
    """What a worker shows of itself; only what is given changes."""

    phase: str  # starting, search, confirm, retrain, waiting
    trial: int | None
    step: int | None
    epoch: float | None
    epochs: int | None


class Worker:
    """A process that works on a study, as a row in the database. The storage acts for it until it is closed.

    A thread raises its beat once a second, writes its progress and reads whether a stop was requested. The thread
    outlives any error of the database: whoever watches must see the beats go on when the database is back. While it
    is away, everything here waits for it, an hour at most, or until `stop` is set.
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
        storage.set_lease_holder(self._holder, RetryPolicy(MAX_OUTAGE_SECONDS, stop))
        self._thread = threading.Thread(target=self._beat_on, name="hpo-beats", daemon=True)
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

    @property
    def worker_id(self) -> int:
        return self._holder.worker_id

    @property
    def name(self) -> str:
        """The worker as people know it, also when it is gone: `3 on gpu-box (cuda:0)`."""
        return f"{self._holder.worker_id} on {socket.gethostname()} ({self._device})"

    @property
    def attempt(self) -> int:
        """How many times the trial in hand was handed out, this time included; 0 with no trial in hand."""
        return self._holder.attempt

    @property
    def checkpoint(self) -> str | None:
        """Where the last checkpoint of the trial in hand is; None where it has none."""
        return self._holder.checkpoint

    def progress(self, **values: Unpack[Progress]) -> None:
        """Note what the worker is doing; the next beat writes it."""
        self._progress = {**self._progress, **values}

    def warn(self, text: str) -> None:
        """Tell the people at the study of something that costs no trial; the next beat that succeeds writes it."""
        log.warning("%s", text)
        self._warning = text

    @_retried
    def claim(self, study: optuna.Study) -> optuna.Trial | None:
        """The next trial to work on, leased to this worker; None when none waits and none may be started.

        First the trials that were given back or orphaned, the oldest first, then the enqueued ones in their order,
        then a new one if the budget allows. Each goes to one worker only. One that this worker holds already, and
        neither ended nor gave back, is handed to it again.
        When a stop was requested: None, and `stop_requested` is set.
        """
        try:
            trial_id = self._take_waiting(study)
            if trial_id is None:
                trial_id = self._begin_new(study)
        except StopRequested:
            self.stop_requested = True
            return None
        if trial_id is None:
            return None
        # As `Study.ask` does, without its own look for waiting trials: the sampler reads the other trials afresh.
        clear_cached_trials(study)
        trial = optuna.Trial(study, trial_id)
        self.progress(trial=trial.number, step=None, epoch=None, epochs=None)
        return trial

    def _begin_new(self, study: optuna.Study) -> int | None:
        """A new trial's id; None where the budget is spent."""
        try:
            return optuna_storage(study).create_new_trial(study_id(study))
        except StopRequested:
            raise
        except BudgetSpent:
            return None

    def _take_waiting(self, study: optuna.Study) -> int | None:
        """The id of the waiting trial that is due; None where none waits."""
        with self.storage.transaction() as session:
            row = session.get(WorkerRow, self.worker_id)
            if row is not None:
                row.ended = False  # one that was frozen and taken for dead must not lose the next trial for it
            trial_id = claim_waiting(session, study_id(study), self._holder)
        if trial_id is not None:  # Optuna's cache learns of it
            optuna_storage(study).get_all_trials(study_id(study), deepcopy=False, states=(TrialState.RUNNING,))
        return trial_id

    def record_checkpoint(self, trial: optuna.Trial, where: str) -> None:
        """Record that the trial can go on from `where` (a path or URL). Raises `LeaseLost`.

        While the database is away the training goes on, and the next checkpoint or the trial's end is recorded.
        """
        self._holder.checkpoint = where
        if self.storage.is_unavailable:
            return
        try:
            with self.storage.transaction() as session:
                lease = check_lease(session, trial_id(trial), self._holder)
                lease.checkpoint, lease.deaths = where, 0
        except StorageUnavailable as error:
            log.warning("trial %d goes on, though its checkpoint is not recorded: %s", trial.number, error)

    @_retried
    def release(self, trial: optuna.Trial, checkpoint: str | None = None, died_of: str | None = None) -> None:
        """Return the trial to the queue with its number, parameters and reports. Raises `LeaseLost`.

        `died_of` says what ends this worker: that counts as a death of the trial's worker.
        """
        self.storage.send_reports()
        with self.storage.transaction() as session:
            lease = check_lease(session, trial_id(trial), self._holder)
            row = session.get_one(models.TrialModel, trial_id(trial))
            if died_of is not None:
                record_death(session, row, lease, f"worker {self.worker_id} on {socket.gethostname()}: {died_of}")
            else:
                lease.worker_id = None
                row.state = TrialState.WAITING
            if checkpoint is not None:
                lease.checkpoint, lease.deaths = checkpoint, 0
        self._let_go()

    def finish(self, study: optuna.Study, trial: optuna.Trial, state: TrialState, value: float | None = None) -> None:
        """Tell the trial's result. Where someone else has told one before, that one stays and this one is logged.

        A value that is not finite makes the trial FAIL: Optuna takes infinity for the best of all. Raises
        `LeaseLost` when the trial is another worker's by now.
        """
        try:
            if state == TrialState.COMPLETE and (value is None or not math.isfinite(value)):
                trial.set_user_attr(FAILURE, f"its value was {value}")
                state, value = TrialState.FAIL, None
            self._tell(study, trial, state, value)
        except LeaseLost:
            told = self.storage.get_trial(trial_id(trial))
            self._let_go()
            if not told.state.is_finished():
                raise
            if told.state == state and value in (None, told.value):
                return  # by this very call: the answer to it got lost in an outage
            log.warning(
                "trial %d was told %s by someone else; the result here, %s %s, is dropped",
                *(trial.number, told.state.name, state.name, "" if value is None else value),
            )
            self._forget_lease(trial_id(trial))
            return
        self._let_go()

    def _tell(self, study: optuna.Study, trial: optuna.Trial, state: TrialState, value: float | None) -> None:
        self._send_reports()  # a pruned trial's value is its last one
        try:
            study.tell(trial, value, state=state)
        except (ValueError, UpdateFinishedTrialError):
            self._check(trial)  # when the lease was lost, that is the reason
            raise

    @_retried
    def _send_reports(self) -> None:
        self.storage.send_reports()

    @_retried
    def _check(self, trial: optuna.Trial) -> None:
        with self.storage.transaction() as session:
            check_lease(session, trial_id(trial), self._holder)

    def close(self) -> None:
        """Return the trial in hand, if any, end the row, and let the storage act for nobody."""
        self._closed.set()
        self._thread.join(timeout=5)
        self.storage.set_lease_holder(None)
        with self.storage.transaction() as session:
            # First, as those do who watch: on servers, two who lock in different orders wait for each other.
            row = session.get(WorkerRow, self.worker_id, with_for_update=True)
            for lease in session.scalars(select(LeaseRow).where(LeaseRow.worker_id == self.worker_id)):
                lease.worker_id = None
                trial = session.get_one(models.TrialModel, lease.trial_id)
                if trial.state == TrialState.RUNNING:
                    trial.state = TrialState.WAITING
            if row is not None:  # else the study was deleted
                row.ended, row.phase, row.warning = True, "gone", self._warning
                row.trial = row.step = row.epoch = row.epochs = None
        self._holder.clear()

    def _let_go(self) -> None:
        self._holder.clear()
        self.progress(trial=None, step=None, epoch=None, epochs=None)

    @_retried
    def _forget_lease(self, trial_id: int) -> None:
        with self.storage.transaction() as session:
            session.execute(delete(LeaseRow).where(LeaseRow.trial_id == trial_id, LeaseRow.worker_id == self.worker_id))

    def _beat_on(self) -> None:
        silent = False
        while not self._closed.wait(HEARTBEAT_SECONDS):
            try:
                self._beat()
            except Exception as error:  # whatever it is: a thread that ended here would cost a living trial
                self.storage.is_unavailable = isinstance(error, StorageUnavailable)
                if not silent:
                    log.warning("worker %d cannot beat, and goes on trying: %s", self.worker_id, error)
                silent = True
            else:
                self.storage.is_unavailable = False
                if silent:
                    log.warning("worker %d beats again", self.worker_id)
                silent = False
        self.storage.remove_session()

    def _beat(self) -> None:
        # One statement under one lock: sixteen workers' beats cost a server as much as all their reports.
        shown: dict[str, Any] = {**self._progress, "warning": self._warning, "ended": False}  # for `ended` see `take`
        row = update(WorkerRow).where(WorkerRow.worker_id == self.worker_id)
        with self.storage.transaction() as session:
            told = session.connection().execute(
                row.values(heartbeat=WorkerRow.heartbeat + 1, heartbeat_at=func.now(), **shown)
            )
            # No row: the study was deleted.
            stop = told.rowcount == 0 or is_stopped(session, self._study_id)
        self.stop_requested = stop
