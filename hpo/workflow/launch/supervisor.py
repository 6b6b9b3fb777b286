"""The supervisor of a run: starts, watches, restarts and stops the worker processes."""

import threading
from contextlib import suppress
from dataclasses import asdict

import optuna

from hpo.backends.base import STOPPED, WorkerExit
from hpo.config.study import StudyConfig
from hpo.core.paths import default_storage
from hpo.core.process import on_interrupt
from hpo.errors import DeviceLost, HpoError, StorageError, StudyError
from hpo.reporting.console import console
from hpo.storage.budget import StudyClock, set_phase
from hpo.storage.database_file import DatabaseRemoved
from hpo.storage.reclaim import reclaim
from hpo.storage.status import StudyStatus, read_status
from hpo.storage.storage import Storage, StorageUnavailable
from hpo.workflow.launch.placement import Placement

RESTARTS = 3  # in a row, of a slot whose processes die early and without a trial
HEALTHY_SECONDS = 300.0  # a process that ran so long did not die because of its slot


class Supervisor:
    """The workers of one study, one in each slot of its backend."""

    def __init__(self, config: StudyConfig, storage: Storage, placement: Placement, objects: str | None = None) -> None:
        """`objects` are pickled ones that the user passed to `hpo.run` (`UserObjects.pickled`)."""
        self._config = config
        self._objects = objects
        self._storage = storage
        self.placement = placement
        self._backend = placement.backend
        self._restarts = dict.fromkeys(range(len(placement.slots)), 0)  # of each slot, in a row
        self._failure: HpoError | None = None
        self._status: StudyStatus | None = None
        self._ended: list[WorkerExit] = []  # unexpected exits that are not handled yet
        self._to_start: list[int] = []  # slots
        self._outage_reported = False
        self._one_is_done = False  # a worker exited because nothing is left to do

    def warm_up(self) -> None:
        """Start the processes early: their imports run while the parent checks the models."""
        for slot in self._restarts:
            self._backend.prestart(slot)

    def work(self, study: optuna.Study) -> None:
        """Start the workers and watch them until all have exited. Raises the first error that costs more than a trial.

        On Ctrl-C all running trials are saved and released, then `KeyboardInterrupt` is raised; on a second one the
        processes are killed.
        """
        interrupted, self._clock = threading.Event(), StudyClock(study, keeps=True)
        try:
            with on_interrupt(interrupted.set, once=True):
                self._start(list(self._restarts))
                console.live(self._read, lambda: interrupted.is_set() or self._tick(study), wait=interrupted.wait)
            if interrupted.is_set():
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            self._stop(study)
            raise
        except DatabaseRemoved:
            self._backend.stop()  # the running trials save their checkpoints
            raise
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Kill the processes that are still running."""
        self._backend.kill()

    def _start(self, slots: list[int]) -> None:
        from hpo.workflow.worker.loop import WorkerSpec

        url = self._config.storage or default_storage()
        specs = {
            slot: WorkerSpec(self._config.name, url, objects=self._objects, **vars(self.placement.slot(slot)))
            for slot in slots
        }
        self._backend.start({slot: asdict(spec) for slot, spec in specs.items()})

    def _read(self) -> StudyStatus:
        """Return the study's status; while the database is unavailable, the last one."""
        try:
            self._status = read_status(self._storage, self._config.name)
        except StorageUnavailable:
            if self._status is None:
                raise
        return self._status

    def _tick(self, study: optuna.Study) -> bool:
        """Handle exits and start workers once; return True when all have exited."""
        exits = self._backend.exits()
        self._one_is_done = self._one_is_done or any(ended.code == 0 for ended in exits)
        self._ended += [ended for ended in exits if ended.code not in (0, STOPPED)]
        try:
            self._clock.tick()
            while self._ended:
                self._handle_exit(study, self._ended[0])
                del self._ended[0]
            self._outage_reported = False
        except StorageUnavailable as error:
            if not self._outage_reported:
                console.warn(f"{error} The workers continue to train, and keep their results until it is available.")
            self._outage_reported = True
        if self._failure is not None:
            self._backend.stop()
        else:
            self._fill()
        # A worker that the backend has not started yet is not needed once another found nothing left to do.
        waiting = self._backend.pending and not self._one_is_done
        return self._backend.running == 0 and not waiting and not self._ended

    def _fill(self) -> None:
        """Restart workers, and start one in each slot that a growing cluster added."""
        grown = [] if self._one_is_done else range(len(self._restarts), self._backend.capacity)
        self._restarts |= dict.fromkeys(grown, 0)
        slots, self._to_start = [*self._to_start, *grown], []
        if slots:
            self._start(slots)

    def _handle_exit(self, study: optuna.Study, ended: WorkerExit) -> None:
        """Replace a lost process, whose trial is resumed by another worker; an `HpoError` of a worker ends the run."""
        held = reclaim(self._storage, study, dead=((ended.machine, ended.pid),))
        # A running trial counts the deaths of its workers itself, and fails at the third.
        restarts = 1 if held or ended.seconds > HEALTHY_SECONDS else self._restarts[ended.slot] + 1
        self._restarts[ended.slot] = restarts
        reason = ended.last_line
        if ended.code < 0 or ended.code == DeviceLost.exit_code:
            event = f"was killed ({_signal(-ended.code)})" if ended.code < 0 else f"is lost: {reason}"
            if restarts <= RESTARTS:
                console.warn(f"worker {ended.slot} {event}; a new one replaces it.")
                self._to_start.append(ended.slot)
                return
            if self._backend.running:
                console.warn(f"worker {ended.slot} {event}, {restarts} times in a row: it is not replaced.")
                return
        if ended.code not in (HpoError.exit_code, StorageError.exit_code):
            reason = f"worker {ended.slot} exited with code {ended.code}: {reason}"
        kind = StorageError if ended.code == StorageError.exit_code else StudyError
        self._failure = self._failure or kind(f"{reason}\nIts log: {ended.log}")

    def _stop(self, study: optuna.Study) -> None:
        console.note("stopping: the running trials are being saved (Ctrl-C again: kill the workers)")
        try:
            gone = self._backend.stop()
        except KeyboardInterrupt:
            gone = self._backend.kill()
        with suppress(StorageUnavailable):  # the next worker of the study reclaims the trials
            reclaim(self._storage, study, dead=[(ended.machine, ended.pid) for ended in gone], killed_by_us=True)
            set_phase(study, "stopped")


def _signal(number: int) -> str:
    """Describe the signal that killed a process."""
    return "signal 9: by a user, or by the system for lack of memory" if number == 9 else f"signal {number}"
