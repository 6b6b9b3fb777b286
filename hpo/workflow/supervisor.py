"""The parent's side of a run: worker processes started, watched, replaced and stopped."""

import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import optuna

from hpo import console
from hpo.backends.local import Exit, LocalBackend
from hpo.core.config import StudyConfig
from hpo.core.errors import DeviceLost, HpoError, StorageError, StudyError
from hpo.core.paths import default_storage, run_folder
from hpo.study.budget import add_seconds, set_phase
from hpo.study.status import StatusReader, StudyStatus
from hpo.study.storage import Storage, StorageAway
from hpo.study.takeover import reclaim

RESTARTS = 3  # in a row, of one slot whose processes die young with no trial in hand
SOUND_SECONDS = 300.0  # a process that lived so long did not die of what its slot is


@dataclass
class _Slot:
    device: str
    threads: int
    restarts: int = 0


class Supervisor:
    """The worker processes of one study on this machine, one for each of `devices`."""

    def __init__(self, config: StudyConfig, storage: Storage, devices: list[str], cores: int) -> None:
        self._config = config
        self._storage = storage
        self._cores = cores
        threads = max(1, cores // len(devices))
        self._slots = {slot: _Slot(device, threads) for slot, device in enumerate(devices)}
        self._backend = LocalBackend("hpo.workflow.worker", run_folder(config.name) / "logs")
        self._failure: HpoError | None = None
        self._counted = time.monotonic()
        self._reader = StatusReader(storage, config.name)
        self._status: StudyStatus | None = None
        self._ended: list[Exit] = []  # processes whose end is not yet dealt with
        self._told_away = False

    def warm_up(self) -> None:
        """Start the processes early: their imports run while the parent checks the models."""
        for number, slot in self._slots.items():
            self._backend.warm_up(number, slot.threads)

    def work(self, study: optuna.Study) -> None:
        """Give the processes their work and watch until all have left. Raises the first error that is no trial's own.

        On Ctrl-C all trials in hand are saved and returned, and `KeyboardInterrupt` goes on; on a second one the
        processes are ended at once.
        """
        for number in self._slots:
            self._start(number)
        try:
            console.live(self._read, lambda: self._tick(study))
        except KeyboardInterrupt:
            self._stop(study)
            raise
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """End what is still there."""
        self._backend.kill()

    def _start(self, number: int) -> None:
        from hpo.workflow.worker import WorkerSpec

        slot = self._slots[number]
        url = self._config.storage or default_storage()
        sharing = sum(other.device == slot.device for other in self._slots.values())
        final_threads = max(self._cores, slot.threads)
        spec = WorkerSpec(self._config.name, url, slot.device, slot.threads, final_threads, sharing)
        self._backend.start(number, asdict(spec), slot.threads)

    def _read(self) -> StudyStatus:
        """The study's status; while the database is away, the last one read."""
        try:
            self._status = self._reader.read()
        except StorageAway:
            if self._status is None:
                raise
        return self._status

    def _tick(self, study: optuna.Study) -> bool:
        """Look after the workers once; True when all have left."""
        self._ended += [ended for ended in self._backend.exits() if ended.code]
        try:
            now = time.monotonic()
            add_seconds(study, now - self._counted)
            self._counted = now
            while self._ended:
                self._ended_badly(study, self._ended[0])
                del self._ended[0]
            self._told_away = False
        except StorageAway as error:
            if not self._told_away:
                console.warn(f"{error} The workers go on, and keep their results until it is back.")
            self._told_away = True
        if self._failure is not None:
            self._backend.stop()
        return self._backend.running == 0 and not self._ended

    def _ended_badly(self, study: optuna.Study, ended: Exit) -> None:
        """A lost process is replaced and its trial goes on elsewhere; an error of hpo's own ends the run."""
        held = reclaim(self._storage, study, dead_pids=(ended.pid,))
        slot = self._slots[ended.slot]
        # A trial in hand counts the deaths of its workers itself, and fails at the third.
        slot.restarts = 1 if held or ended.seconds > SOUND_SECONDS else slot.restarts + 1
        reason = _last_line(ended.log)
        if ended.code < 0 or ended.code == DeviceLost.exit_code:
            told = f"was killed ({_signal(-ended.code)})" if ended.code < 0 else f"is lost: {reason}"
            if slot.restarts <= RESTARTS:
                console.warn(f"worker {ended.slot} {told}; another takes its place.")
                self._start(ended.slot)
                return
            if self._backend.running:
                console.warn(f"worker {ended.slot} {told}, {slot.restarts} times in a row: its place stays empty.")
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
        with suppress(StorageAway):  # those who come later see for themselves who is gone
            reclaim(self._storage, study, dead_pids=tuple(ended.pid for ended in gone), killed_by_us=True)
            set_phase(study, "stopped")


def _signal(number: int) -> str:
    """The signal that ended a process, for people."""
    return "signal 9: by someone, or by the system for want of memory" if number == 9 else f"signal {number}"


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it wrote nothing"
