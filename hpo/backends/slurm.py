"""Workers in Slurm's jobs, by submitit: an array, each job of which is queued again when it is preempted.

A job holds its workers as processes, as the local backend does. What parent and job say to each other goes through
files in a folder that both reach: submitit's pickles, and signs: `….began`, and `….stop` to have the workers leave.
"""

import getpass
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import submitit
from submitit.core.utils import FailedJobError, UncompletedJobError
from submitit.slurm.slurm import SlurmInfoWatcher

from hpo.backends.base import STOPPED, Specification, WorkerExit
from hpo.backends.local import LocalBackend
from hpo.config.backend import SlurmConfig
from hpo.core.process import thread_handler
from hpo.errors import ConfigError, DeviceLost

POLL_SECONDS = 0.5
SAVE_SECONDS = 30.0  # that workers get, of the warning, to save their trials
# A worker told to leave, in a job that lives on: after Slurm's SIGTERM comes its end, within KillWait (30 s as a rule).
END_SECONDS = 90.0
CANCEL_SECONDS = 5.0  # that the end of a job is waited for
REQUEUES = 10_000  # submitit's limit for jobs that ran into their time limit
QUEUE_SECONDS = 60  # between two looks into Slurm's queue


class Job:
    """What runs on a node, inside submitit: workers, until all have left for good."""

    def __init__(
        self, module: str, logs: str, threads: int, specifications: Mapping[int, Specification], signs: Path
    ) -> None:
        self._given = (module, logs, threads, specifications, signs)
        self._specifications = specifications
        self._signs = signs
        self._local = LocalBackend(module, Path(logs), threads, len(specifications))
        self._warned = threading.Event()

    def __reduce__(self) -> tuple[Any, ...]:
        return Job, self._given

    def __call__(self) -> list[WorkerExit]:
        signal.signal(signal.SIGTERM, thread_handler(lambda _: self._warned.set()))  # submitit would not heed it
        _began(self._signs).touch()
        try:
            return self._work()
        finally:
            self._local.kill()

    def _work(self) -> list[WorkerExit]:
        ended: dict[int, WorkerExit] = {}
        self._local.start(self._specifications)
        while not self._is_stopped(POLL_SECONDS):
            exits = self._local.exits()
            warned = self._warned.is_set()
            if warned:
                exits += self._local.stop(SAVE_SECONDS)
            ended |= {each.slot: each for each in exits}
            # Who had to be killed left as well: told as lost, it would be replaced, and the job yet queued again.
            left = [each.slot for each in exits if each.code == STOPPED or (warned and each.code < 0)]
            if left and not self._is_stopped(END_SECONDS):
                self._warned.clear()  # it was somebody's signal, not the job's end
                self._local.start({slot: self._specifications[slot] for slot in left if ended.pop(slot)})
            if len(ended) == len(self._specifications):
                return list(ended.values())
        patience = _stop(self._signs).read_text()
        return [*ended.values(), *self._local.stop(float(patience or SAVE_SECONDS))]

    def _is_stopped(self, seconds: float) -> bool:
        """Whether within so many seconds the workers are asked to leave for good."""
        until = time.monotonic() + seconds
        while not _stop(self._signs).exists():
            if time.monotonic() > until:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """The job is about to be ended, and queued again: its workers save their trials and leave."""
        self._local.stop(SAVE_SECONDS)
        _began(self._signs).unlink(missing_ok=True)
        return submitit.helpers.DelayedSubmission(Job(*self._given))


class Queue(SlurmInfoWatcher):
    """Which jobs are over: those that Slurm's queue does not list any more.

    submitit itself asks `sacct`, which fails where Slurm keeps no accounts, and every ten minutes. And it takes a job
    that is suspended for one that is over, and one that was preempted for good for one that goes on.
    """

    def __init__(self) -> None:
        super().__init__(delay_s=QUEUE_SECONDS)

    def _make_command(self) -> list[str] | None:
        known = self._registered - self._finished
        return ["squeue", f"--user={getpass.getuser()}", "--array", "--noheader", "--format=%i"] if known else None

    def listed(self, jobs: Sequence[str]) -> list[str]:
        """Those of the jobs that are in the queue now."""
        for job in jobs:
            self.register_job(job)
        self.update()
        return [job for job in jobs if not self.is_done(job, mode="cache")]

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        listed = (string if isinstance(string, str) else string.decode()).split()
        return {job: {"State": "RUNNING" if job in listed else "left the queue"} for job in self._registered}


def _began(signs: Path) -> Path:
    """The file that says that a job runs."""
    return signs.with_suffix(".began")


def _stop(signs: Path) -> Path:
    """The file that asks a job's workers to leave for good; it holds the seconds that they have for it."""
    return signs.with_suffix(".stop")


@dataclass
class _Submitted:
    job: Any
    slots: tuple[int, ...]
    signs: Path
    since: float

    @property
    def runs(self) -> bool:
        # Not by Slurm's queue: it is asked once a minute.
        return _began(self.signs).exists()


class SlurmBackend:
    """Jobs of `per_job` workers each, submitted as one array for all the slots that are started together."""

    def __init__(
        self,
        module: str,
        logs: Path,
        settings: SlurmConfig,
        gpus: int,
        workers: int,
        per_job: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is what jobs find there: secrets go this way, for submitit writes specifications to files.

        Raises `ConfigError` where there is no Slurm, or where there are options that it does not know.
        """
        self.capacity = workers
        self._module, self._logs, self._settings, self._per_job = module, logs, settings, per_job
        self._environment = dict(environment or {})
        self._folder = logs / "jobs"
        self._jobs: list[_Submitted] = []
        self._told: list[str] = []  # ids of jobs whose end was told
        self._queue = Queue() if settings.cluster == "slurm" else None
        self._executor = self._make_executor(gpus)

    def _make_executor(self, gpus: int) -> Any:
        settings, cluster = self._settings, self._settings.cluster
        if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise ConfigError("backend: slurm: there is no sbatch on this machine; run hpo where jobs are submitted.")
        options: dict[str, Any] = {f"{cluster}_setup": list(settings.setup)} if settings.setup else {}
        if self._queue is not None:
            submitit.SlurmJob.watcher = self._queue
            options["slurm_additional_parameters"] = {"requeue": True, **settings.options}
            options["slurm_signal_delay_s"] = settings.warning_seconds
            if settings.partition is not None:
                options["slurm_partition"] = settings.partition
            if settings.memory_gb is not None:
                options["mem_gb"] = settings.memory_gb
        if gpus:
            options["gpus_per_node"] = gpus
        executor = submitit.AutoExecutor(self._folder, cluster=cluster, **{f"{cluster}_max_num_timeout": REQUEUES})
        executor.update_parameters(
            name="hpo",
            timeout_min=max(1, round(settings.hours * 60)),
            cpus_per_task=settings.cpus_per_worker * self._per_job,
            **options,
        )
        return executor

    def prestart(self, slot: int) -> None:
        """Nothing: a job begins when Slurm says so."""

    def start(self, specifications: Mapping[int, Specification]) -> None:
        """Submit an array of jobs for these slots. Raises `ConfigError` where Slurm refuses it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        slots = list(specifications)
        groups = [tuple(slots[at : at + self._per_job]) for at in range(0, len(slots), self._per_job)]
        signs = [self._folder / f"signs-{uuid4().hex}" for _ in groups]
        made = [
            self._job({slot: specifications[slot] for slot in group}, own)
            for group, own in zip(groups, signs, strict=True)
        ]
        try:
            with _environment(self._environment), self._executor.batch():
                jobs = [self._executor.submit(each) for each in made]
        except FailedJobError as error:
            raise ConfigError(f"backend: slurm: the jobs were refused: {' '.join(str(error).split())}") from None
        now = time.monotonic()
        self._jobs += [_Submitted(*each, since=now) for each in zip(jobs, groups, signs, strict=True)]

    def _job(self, specifications: Mapping[int, Specification], signs: Path) -> Job:
        threads = self._settings.cpus_per_worker
        plain = {slot: {**given, "storage": None} for slot, given in specifications.items()}
        return Job(self._module, str(self._logs), threads, plain, signs)

    def exits(self) -> list[WorkerExit]:
        """The workers of the jobs that ended since the last call. A job that is queued again has not ended."""
        ended = []
        for submitted in [each for each in self._jobs if each.job.done()]:
            self._jobs.remove(submitted)
            self._told.append(submitted.job.job_id)
            ended += self._exits_of(submitted)
            _began(submitted.signs).unlink(missing_ok=True)
            _stop(submitted.signs).write_text("0")  # for a job that was preempted as it ended: Slurm queues it again
        return ended

    def _exits_of(self, submitted: _Submitted) -> list[WorkerExit]:
        try:
            found: list[WorkerExit] = submitted.job.result()
        except (UncompletedJobError, FailedJobError) as error:
            said = f"its job {submitted.job.job_id} ended without a word: {' '.join(str(error).split())[-300:]}"
            return _gone(submitted, DeviceLost.exit_code, said)
        return found

    @property
    def running(self) -> int:
        return sum(len(each.slots) for each in self._jobs if each.runs)

    @property
    def pending(self) -> int:
        return sum(len(each.slots) for each in self._jobs if not each.runs)

    def stop(self, grace_seconds: float = 10.0) -> list[WorkerExit]:
        """Ask all workers to save and leave; cancel the jobs that are still there some seconds after the patience."""
        return self._end(grace_seconds)

    def kill(self) -> list[WorkerExit]:
        """End all workers, and cancel the jobs."""
        return self._end(0.0)

    def _end(self, grace_seconds: float) -> list[WorkerExit]:
        for submitted in self._jobs:
            _stop(submitted.signs).write_text(str(grace_seconds))
        ended = self.exits()
        until = time.monotonic() + grace_seconds + CANCEL_SECONDS
        while self.running and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            ended += self.exits()
        for submitted in self._jobs:
            submitted.job.cancel(check=False)
            ended += _gone(submitted, -9, "its job was cancelled")
        until = time.monotonic() + CANCEL_SECONDS
        while not all(each.job.done() for each in self._jobs) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        self._jobs = []
        self._cancel_told()
        return ended

    def _cancel_told(self) -> None:
        """Cancel the jobs that Slurm queued again after their end was told: they were preempted as they ended."""
        until = time.monotonic() + CANCEL_SECONDS
        while self._queue is not None and (listed := self._queue.listed(self._told)):
            if time.monotonic() > until:
                subprocess.run(["scancel", "--quiet", *listed], check=False)
                break
            time.sleep(POLL_SECONDS)  # one that ends as it should needs a moment
        self._told = []


def _gone(submitted: _Submitted, code: int, said: str) -> list[WorkerExit]:
    """The ends of workers of which nothing is known but that their job is gone."""
    seconds = time.monotonic() - submitted.since
    log = str(submitted.job.paths.stderr)
    return [WorkerExit(slot, "", 0, code, seconds, said, log) for slot in submitted.slots]


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """These variables in the environment, which jobs inherit, while they are submitted."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
