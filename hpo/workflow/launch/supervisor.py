"""The parent's side of a run: worker processes started, watched, replaced and stopped."""

import threading
import time
from contextlib import suppress
from dataclasses import asdict

import optuna

from hpo.backends.base import STOPPED, WorkerExit
from hpo.config.study import StudyConfig
from hpo.core.paths import default_storage
from hpo.core.process import on_interrupt
from hpo.errors import DeviceLost, HpoError, StorageError, StudyError
from hpo.reporting.console import console
from hpo.storage.budget import add_seconds, set_phase
from hpo.storage.reclaim import reclaim
from hpo.storage.status import StudyStatus, read_status
from hpo.storage.storage import Storage, StorageUnavailable
from hpo.workflow.launch.placement import Placement

RESTARTS = 3  # in a row, of one slot whose processes die young with no trial in hand
SOUND_SECONDS = 300.0  # a process that lived so long did not die of what its slot is


class Supervisor:
    """The workers of one study, one in each slot that its backend has room for."""

    def __init__(self, config: StudyConfig, storage: Storage, placement: Placement, objects: str | None = None) -> None:
        """`objects` are pickled ones that the user passed to `hpo.run` (`UserObjects.pickled`)."""
        self._config = config
        self._objects = objects
        self._storage = storage
        self.placement = placement
        self._backend = placement.backend
        self._restarts = dict.fromkeys(range(len(placement.slots)), 0)  # of each slot, in a row
        self._failure: HpoError | None = None
        self._counted = time.monotonic()
        self._status: StudyStatus | None = None
        self._ended: list[WorkerExit] = []  # processes whose end is not yet dealt with
        self._to_start: list[int] = []  # slots
        self._told_away = False
        self._one_is_done = False  # a worker left for there was nothing more to do

    def warm_up(self) -> None:
        """Start the processes early: their imports run while the parent checks the models."""
        for slot in self._restarts:
            self._backend.prestart(slot)

    def work(self, study: optuna.Study) -> None:
        """Give the workers their work and watch until all have left. Raises the first error that is no trial's own.

        On Ctrl-C all trials in hand are saved and returned, and `KeyboardInterrupt` goes on; on a second one the
        processes are ended at once.
        """
        interrupted = threading.Event()
        try:
            with on_interrupt(interrupted.set, once=True):
                self._start(list(self._restarts))
                console.live(self._read, lambda: interrupted.is_set() or self._tick(study), wait=interrupted.wait)
            if interrupted.is_set():
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            self._stop(study)
            raise
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """End what is still there."""
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
        """The study's status; while the database is away, the last one read."""
        try:
            self._status = read_status(self._storage, self._config.name)
        except StorageUnavailable:
            if self._status is None:
                raise
        return self._status

    def _tick(self, study: optuna.Study) -> bool:
        """Look after the workers once; True when all have left."""
        exits = self._backend.exits()
        self._one_is_done = self._one_is_done or any(ended.code == 0 for ended in exits)
        self._ended += [ended for ended in exits if ended.code not in (0, STOPPED)]
        try:
            now = time.monotonic()
            add_seconds(study, now - self._counted)
            self._counted = now
            while self._ended:
                self._ended_badly(study, self._ended[0])
                del self._ended[0]
            self._told_away = False
        except StorageUnavailable as error:
            if not self._told_away:
                console.warn(f"{error} The workers go on, and keep their results until it is back.")
            self._told_away = True
        if self._failure is not None:
            self._backend.stop()
        else:
            self._fill()
        # Who still waits for room need not come any more when another found nothing left to do.
        waiting = self._backend.pending and not self._one_is_done
        return self._backend.running == 0 and not waiting and not self._ended

    def _fill(self) -> None:
        """Start what is to be started again, and a worker in each slot that a cluster has got more."""
        grown = [] if self._one_is_done else range(len(self._restarts), self._backend.capacity)
        self._restarts |= dict.fromkeys(grown, 0)
        slots, self._to_start = [*self._to_start, *grown], []
        if slots:
            self._start(slots)

    def _ended_badly(self, study: optuna.Study, ended: WorkerExit) -> None:
        """A lost process is replaced and its trial goes on elsewhere; an error of hpo's own ends the run."""
        held = reclaim(self._storage, study, dead=((ended.machine, ended.pid),))
        # A trial in hand counts the deaths of its workers itself, and fails at the third.
        restarts = 1 if held or ended.seconds > SOUND_SECONDS else self._restarts[ended.slot] + 1
        self._restarts[ended.slot] = restarts
        reason = ended.last_line
        if ended.code < 0 or ended.code == DeviceLost.exit_code:
            told = f"was killed ({_signal(-ended.code)})" if ended.code < 0 else f"is lost: {reason}"
            if restarts <= RESTARTS:
                console.warn(f"worker {ended.slot} {told}; another takes its place.")
                self._to_start.append(ended.slot)
                return
            if self._backend.running:
                console.warn(f"worker {ended.slot} {told}, {restarts} times in a row: its place stays empty.")
                return
        if ended.code not in (HpoError.exit_code, StorageError.exit_code):
            reason = f"worker {ended.slot} ended with code {ended.code}: {reason}"
        kind = StorageError if ended.code == StorageError.exit_code else StudyError
        self._failure = self._failure or kind(f"{reason}\nIts log: {ended.log}")

    def _stop(self, study: optuna.Study) -> None:
        console.note("stopping: the trials in hand are being saved (Ctrl-C again: leave at once)")
        try:
            gone = self._backend.stop()
        except KeyboardInterrupt:
            gone = self._backend.kill()
        with suppress(StorageUnavailable):  # those who come later see for themselves who is gone
            reclaim(self._storage, study, dead=[(ended.machine, ended.pid) for ended in gone], killed_by_us=True)
            set_phase(study, "stopped")


def _signal(number: int) -> str:
    """The signal that ended a process, for people."""
    return "signal 9: by someone, or by the system for want of memory" if number == 9 else f"signal {number}"
