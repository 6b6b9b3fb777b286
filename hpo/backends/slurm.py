"""Workers in Slurm jobs, by submitit: arrays of jobs that are requeued when they are preempted.

A job runs its workers as processes, as the local backend does. Parent and job communicate through files in a shared
folder: the pickles of submitit, and two flag files, `….started` and `….stop`.
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
SAVE_SECONDS = 30.0  # that workers have to save their trials after Slurm's warning
# Wait before a worker that got SIGTERM is restarted: Slurm kills the job within KillWait, by default 30 s.
END_SECONDS = 90.0
CANCEL_SECONDS = 5.0  # timeout for the end of a job
REQUEUES = 10_000  # submitit's limit for jobs that reach their time limit
QUEUE_SECONDS = 60  # between two calls of squeue


class Job:
    """Runs on a node, inside submitit: workers until all have ended."""

    def __init__(
        self, module: str, logs: str, threads: int, specifications: Mapping[int, Specification], flags: Path
    ) -> None:
        self._arguments = (module, logs, threads, specifications, flags)
        self._specifications = specifications
        self._flags = flags
        self._local = LocalBackend(module, Path(logs), threads, len(specifications))
        self._warned = threading.Event()

    def __reduce__(self) -> tuple[Any, ...]:
        return Job, self._arguments

    def __call__(self) -> list[WorkerExit]:
        signal.signal(signal.SIGTERM, thread_handler(lambda _: self._warned.set()))  # submitit ignores it
        _started_flag(self._flags).touch()
        try:
            return self._run()
        finally:
            self._local.kill()

    def _run(self) -> list[WorkerExit]:
        ended: dict[int, WorkerExit] = {}
        self._local.start(self._specifications)
        while not self._is_stopped(POLL_SECONDS):
            exits = self._local.exits()
            warned = self._warned.is_set()
            if warned:
                exits += self._local.stop(SAVE_SECONDS)
            ended |= {each.slot: each for each in exits}
            # A worker that had to be killed counts as stopped: if lost, it would be replaced, and the job requeued too.
            stopped = [each.slot for each in exits if each.code == STOPPED or (warned and each.code < 0)]
            if stopped and not self._is_stopped(END_SECONDS):
                self._warned.clear()  # a user's signal, not the end of the job
                self._local.start({slot: self._specifications[slot] for slot in stopped if ended.pop(slot)})
            if len(ended) == len(self._specifications):
                return list(ended.values())
        grace = _stop_flag(self._flags).read_text()
        return [*ended.values(), *self._local.stop(float(grace or SAVE_SECONDS))]

    def _is_stopped(self, seconds: float) -> bool:
        """Wait for the stop flag; return whether it was set within `seconds`."""
        until = time.monotonic() + seconds
        while not _stop_flag(self._flags).exists():
            if time.monotonic() > until:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """Stop the workers, which save their trials, and resubmit the job. Called when Slurm is about to requeue it."""
        self._local.stop(SAVE_SECONDS)
        _started_flag(self._flags).unlink(missing_ok=True)
        return submitit.helpers.DelayedSubmission(Job(*self._arguments))


class SlurmQueue(SlurmInfoWatcher):
    """Reports the jobs that Slurm's queue no longer lists as finished.

    submitit's own watcher calls `sacct` every ten minutes, which fails in clusters without accounting. It reports
    suspended jobs as finished, and jobs that were preempted and not requeued as running.
    """

    def __init__(self) -> None:
        super().__init__(delay_s=QUEUE_SECONDS)

    def _make_command(self) -> list[str] | None:
        unfinished = self._registered - self._finished
        command = ["squeue", f"--user={getpass.getuser()}", "--array", "--noheader", "--format=%i"]
        return command if unfinished else None

    def listed(self, jobs: Sequence[str]) -> list[str]:
        """Return those of `jobs` that are in the queue."""
        for job in jobs:
            self.register_job(job)
        self.update()
        return [job for job in jobs if not self.is_done(job, mode="cache")]

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """Parse the output of squeue into the state of each job."""
        listed = (string if isinstance(string, str) else string.decode()).split()
        return {job: {"State": "RUNNING" if job in listed else "finished"} for job in self._registered}


def _started_flag(flags: Path) -> Path:
    """Return the file that exists while a job runs."""
    return flags.with_suffix(".started")


def _stop_flag(flags: Path) -> Path:
    """Return the file that stops a job's workers. It contains the seconds that they have for it."""
    return flags.with_suffix(".stop")


@dataclass
class _Submitted:
    job: Any
    slots: tuple[int, ...]
    flags: Path
    since: float

    @property
    def is_running(self) -> bool:
        # Not by Slurm's queue, which is polled once a minute only.
        return _started_flag(self.flags).exists()


class SlurmBackend:
    """Runs workers in jobs of `per_job` workers. Slots that are started together are submitted as one array."""

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
        """Create the submitit executor. Raises `ConfigError` if Slurm is missing.

        `environment` holds the variables of the jobs, and their secrets: submitit writes specifications to files.
        """
        self.capacity = workers
        self._module, self._logs, self._settings, self._per_job = module, logs, settings, per_job
        self._environment = dict(environment or {})
        self._folder = logs / "jobs"
        self._jobs: list[_Submitted] = []
        self._reported: list[str] = []  # ids of jobs whose end was reported
        self._queue = SlurmQueue() if settings.cluster == "slurm" else None
        self._executor = self._create_executor(gpus)

    def _create_executor(self, gpus: int) -> Any:
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
        """Do nothing: Slurm decides when a job starts."""

    def start(self, specifications: Mapping[int, Specification]) -> None:
        """Submit an array of jobs for these slots. Raises `ConfigError` if Slurm rejects it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        slots = list(specifications)
        groups = [tuple(slots[at : at + self._per_job]) for at in range(0, len(slots), self._per_job)]
        flags = [self._folder / f"flags-{uuid4().hex}" for _ in groups]
        functions = [
            self._job({slot: specifications[slot] for slot in group}, path)
            for group, path in zip(groups, flags, strict=True)
        ]
        try:
            with _environment(self._environment), self._executor.batch():
                jobs = [self._executor.submit(each) for each in functions]
        except FailedJobError as error:
            raise ConfigError(f"backend: slurm: the jobs were rejected: {' '.join(str(error).split())}") from None
        now = time.monotonic()
        self._jobs += [_Submitted(*each, since=now) for each in zip(jobs, groups, flags, strict=True)]

    def _job(self, specifications: Mapping[int, Specification], flags: Path) -> Job:
        threads = self._settings.cpus_per_worker
        plain = {slot: {**specification, "storage": None} for slot, specification in specifications.items()}
        return Job(self._module, str(self._logs), threads, plain, flags)

    def exits(self) -> list[WorkerExit]:
        """Return the workers of the jobs that ended since the last call. A requeued job has not ended."""
        ended = []
        for submitted in [each for each in self._jobs if each.job.done()]:
            self._jobs.remove(submitted)
            self._reported.append(submitted.job.job_id)
            ended += self._exits_of(submitted)
            _started_flag(submitted.flags).unlink(missing_ok=True)
            _stop_flag(submitted.flags).write_text("0")  # if the job was preempted as it ended, Slurm requeues it
        return ended

    def _exits_of(self, submitted: _Submitted) -> list[WorkerExit]:
        try:
            found: list[WorkerExit] = submitted.job.result()
        except (UncompletedJobError, FailedJobError) as error:
            reason = f"its job {submitted.job.job_id} ended without a result: {' '.join(str(error).split())[-300:]}"
            return _lost_workers(submitted, DeviceLost.exit_code, reason)
        return found

    @property
    def running(self) -> int:
        """Number of workers of running jobs."""
        return sum(len(each.slots) for each in self._jobs if each.is_running)

    @property
    def pending(self) -> int:
        """Number of workers of queued jobs."""
        return sum(len(each.slots) for each in self._jobs if not each.is_running)

    def stop(self, grace_seconds: float = 10.0) -> list[WorkerExit]:
        """Request that all workers save and stop; cancel jobs that still run some seconds after `grace_seconds`."""
        return self._end(grace_seconds)

    def kill(self) -> list[WorkerExit]:
        """Kill all workers and cancel the jobs."""
        return self._end(0.0)

    def _end(self, grace_seconds: float) -> list[WorkerExit]:
        for submitted in self._jobs:
            _stop_flag(submitted.flags).write_text(str(grace_seconds))
        ended = self.exits()
        until = time.monotonic() + grace_seconds + CANCEL_SECONDS
        while self.running and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            ended += self.exits()
        for submitted in self._jobs:
            submitted.job.cancel(check=False)
            ended += _lost_workers(submitted, -9, "its job was cancelled")
        until = time.monotonic() + CANCEL_SECONDS
        while not all(each.job.done() for each in self._jobs) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        self._jobs = []
        self._cancel_requeued()
        return ended

    def _cancel_requeued(self) -> None:
        """Cancel the jobs that Slurm requeued after their end was reported: they were preempted as they ended."""
        until = time.monotonic() + CANCEL_SECONDS
        while self._queue is not None and (listed := self._queue.listed(self._reported)):
            if time.monotonic() > until:
                subprocess.run(["scancel", "--quiet", *listed], check=False)
                break
            time.sleep(POLL_SECONDS)  # a job that ends normally leaves the queue in a moment
        self._reported = []


def _lost_workers(submitted: _Submitted, code: int, reason: str) -> list[WorkerExit]:
    """Return the exits of the workers of a job that ended without reporting them."""
    seconds = time.monotonic() - submitted.since
    log = str(submitted.job.paths.stderr)
    return [WorkerExit(slot, "", 0, code, seconds, reason, log) for slot in submitted.slots]


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set these environment variables, which jobs inherit, while they are submitted."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
