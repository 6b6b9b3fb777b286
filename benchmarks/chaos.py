"""Chaos: four workers, one of which is killed, terminated or suspended every 15 s. Is the result that of a quiet run?

    python -m benchmarks.chaos                                    # SQLite: a quiet run, then 10 minutes of faults
    python -m benchmarks.chaos --minutes 4 --storage postgresql   # a private server, which is killed twice

A fixed list of configurations of a bundled model is enqueued and searched twice: without and with faults. Workers are
`hpo worker` processes, which are replaced when they end, as by a scheduler. It needs the data of the quickstart
(examples/docstrings.py). All invariants of a search are checked, and each value is compared with the quiet run.
"""

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.storages._rdb import models
from optuna.trial import TrialState
from rich.table import Table
from sqlalchemy import select

from hpo.config.load import load_config
from hpo.core.paths import run_folder
from hpo.reporting.console import console
from hpo.storage.models import LeaseRow, WorkerRow
from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import TrialRecord
from hpo.storage.status import read_status
from hpo.storage.storage import Storage, StorageUnavailable, open_storage
from hpo.training.execution import choose_execution
from hpo.workflow.context import StudyContext
from hpo.workflow.launch.create import create_study
from hpo.workflow.worker.stages import stage_folder
from tests import servers

EXAMPLES = Path(__file__).parents[1] / "examples"
WORKERS, GRACE_SECONDS = 4, 60.0
FAULTS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGSTOP": signal.SIGSTOP}
SUSPENDED_SECONDS = (5.0, 90.0)  # sometimes longer than the grace period
OUTAGE_SECONDS = 15.0
MARK = "HPO_CHAOS_FLEET"  # environment variable that identifies the processes of a fleet


def study(name: str, folder: Path, trials: int, rows: int) -> dict[str, Any]:
    """Return a study of `trials` configurations, which are all enqueued and never pruned."""
    data = folder / "data"
    if not data.exists():
        data.mkdir()
        for split, limit in {"train": rows, "validation": 200, "test": 200}.items():
            with (EXAMPLES / "data" / "docstrings" / f"{split}.csv").open() as source:
                table = list(csv.reader(source))[: limit + 1]
            with (data / f"{split}.csv").open("w", newline="") as target:
                csv.writer(target).writerows(table)
    rates = [round(1e-4 * (1 + 0.15 * number), 8) for number in range(trials)]
    return {
        "name": name,
        "data": str(data),
        "models": [str(EXAMPLES / "models" / "bert-3x128")],
        "max_length": 64,
        "search_space": {"learning_rate": {"low": 1e-5, "high": 1e-1}, "batch_size": [16, 32], "epochs": 3},
        "first_trials": [{"learning_rate": rate, "batch_size": (16, 32)[i % 2]} for i, rate in enumerate(rates)],
        "budget": {"max_trials": trials},
        "pruner": "none",
        "confirm": {"top": 1, "seeds": 1},
        "refit": "none",
        "devices": "cpu",
    }


def create(definition: dict[str, Any], storage: Storage) -> optuna.Study:
    context = StudyContext.create(load_config(definition), choose_execution("cpu", 1))
    return create_study(context, storage)


class Fleet:
    """`WORKERS` processes of `hpo worker`. One that ended is replaced until the study is finished."""

    def __init__(self, name: str, url: str, log: Path) -> None:
        self._command = [sys.executable, "-m", "hpo.cli", "worker", "--study", name, "--device", "cpu"]
        self._environment = {**os.environ, "HPO_STORAGE": url, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._environment[MARK] = self._mark = str(log)
        self._log = log
        self.processes: list[subprocess.Popen[bytes]] = []
        self.codes: Counter[int] = Counter()

    def replace(self) -> None:
        """Start a process for each one that ended."""
        for process in list(self.processes):
            if process.poll() is not None:
                self.codes[process.returncode] += 1
                self.processes.remove(process)
        while len(self.processes) < WORKERS:
            with self._log.open("ab") as log:
                self.processes.append(subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log))

    def kill(self) -> None:
        for process in self.processes:
            process.kill()

    def wait(self, seconds: float = 300.0) -> int:
        """Wait until all have ended. Kills the others after `seconds` and returns their number, with their children."""
        psutil.wait_procs([psutil.Process(p.pid) for p in self.processes if p.poll() is None], seconds)
        orphans = [process for process in psutil.process_iter() if self._is_ours(process)]
        for process in orphans:
            process.kill()
        return len(orphans)

    def _is_ours(self, process: psutil.Process) -> bool:
        """Return whether a process is one of the fleet or a descendant."""
        try:
            return process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False  # of another user, or it has ended


@dataclass
class RunningTrial:
    """A running trial: since when it has this attempt, and since when its worker is not alive."""

    attempt: int
    pid: int
    since: float
    dead_since: float | None = None


@dataclass
class Watcher:
    """Observes a study from outside, several times a second."""

    storage: Storage
    study: optuna.Study
    held: dict[int, RunningTrial] = field(default_factory=dict)
    longest_orphaned: float = 0.0
    seconds_lost: float = 0.0
    suspended: dict[int, tuple[float, int, int, float]] = field(default_factory=dict)
    finished: bool = False

    def update(self) -> None:
        trials, leases = models.TrialModel, LeaseRow
        query = (
            select(trials.number, leases.attempt, WorkerRow.pid)
            .join(leases, leases.trial_id == trials.trial_id)
            .join(WorkerRow, WorkerRow.worker_id == leases.worker_id)
            .where(trials.study_id == self.study._study_id, trials.state == TrialState.RUNNING)
        )
        try:
            with self.storage.reading() as session:
                rows = [tuple(row) for row in session.execute(query)]
            self.finished = read_status(self.storage, self.study.study_name).phase == "finished"
        except StorageUnavailable:
            for one in self.held.values():
                one.dead_since = None  # no trial can be reclaimed meanwhile
            return
        now = time.time()
        current = {}
        for number, attempt, pid in rows:
            one = self.held.get(number)
            if one is None or one.attempt != attempt:
                one = RunningTrial(attempt, pid, now)
            if is_alive(pid):
                one.dead_since = None
            else:
                one.dead_since = one.dead_since or now
                self.longest_orphaned = max(self.longest_orphaned, now - one.dead_since)
            current[number] = one
        self.held = current

    def unsaved_work(self, pid: int) -> tuple[int, int, float]:
        """Return the trial and attempt of a worker, and the seconds since its last checkpoint."""
        for number, one in self.held.items():
            if one.pid == pid:
                folder = run_folder(self.study.study_name) / "checkpoints" / f"{stage_folder(self.study)}-{number}"
                saved = [path.stat().st_mtime for path in folder.glob("checkpoint-*")] if folder.exists() else []
                return number, one.attempt, time.time() - max([one.since, *saved])
        return -1, 0, 0.0

    def attempt_of(self, number: int) -> int:
        return self.held[number].attempt if number in self.held else -1


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


class Chaos:
    """Causes random faults of workers, and crashes of the server."""

    def __init__(
        self, fleet: Fleet, watcher: Watcher, server: servers.Server | None, seconds: float, every: float, seed: int
    ) -> None:
        self.every = every
        self.fleet, self.watcher, self.server = fleet, watcher, server
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.start = time.time()
        self.until = self.start + seconds
        self._next = self.start + every
        self._server_kills = [self.start + seconds * share for share in (1 / 3, 2 / 3)] if server else []
        self._server_back: float | None = None

    @property
    def over(self) -> bool:
        return time.time() >= self.until

    def tick(self) -> None:
        now = time.time()
        self._resume(now)
        if self._server_back is not None and now >= self._server_back and self.server:
            self.server.start()
            self._server_back = None
        if self._server_kills and now >= self._server_kills[0] and self.server and not self.over:
            self._server_kills.pop(0)
            self.server.crash()
            self.counts["server killed"] += 1
            self._server_back = now + OUTAGE_SECONDS
        if now >= self._next and not self.over:
            self._next = now + self.every
            self._cause_fault(now)

    def _cause_fault(self, now: float) -> None:
        victims = [p for p in self.fleet.processes if p.poll() is None and p.pid not in self.watcher.suspended]
        if not victims:
            return
        victim = self.random.choice(victims)
        fault = self.random.choice(sorted(FAULTS))
        number, attempt, lost = self.watcher.unsaved_work(victim.pid)
        victim.send_signal(FAULTS[fault])
        self.counts[fault] += 1
        if fault == "kill -9":
            self.watcher.seconds_lost += lost
        if fault == "SIGSTOP":
            resumes = now + self.random.uniform(*SUSPENDED_SECONDS)
            self.watcher.suspended[victim.pid] = (resumes, number, attempt, lost)

    def _resume(self, now: float) -> None:
        for pid, (resumes, number, attempt, lost) in list(self.watcher.suspended.items()):
            if now < resumes and not self.over:
                continue
            if self.watcher.attempt_of(number) > attempt:
                self.counts["reclaimed from a suspended worker"] += 1
                self.watcher.seconds_lost += lost
            if psutil.pid_exists(pid):
                psutil.Process(pid).send_signal(signal.SIGCONT)
            del self.watcher.suspended[pid]


def run(watcher: Watcher, fleet: Fleet, chaos: Chaos | None) -> float:
    """Run the fleet until the study is finished. Returns the seconds."""
    start = time.time()
    while not watcher.finished:
        fleet.replace()
        if chaos is not None:
            chaos.tick()
        watcher.update()
        time.sleep(0.25)
    if chaos is not None:
        chaos.until = 0.0
        chaos.tick()
    return time.time() - start


def values_of(found: optuna.Study) -> dict[str, float | None]:
    return {str(sorted(trial.params.items())): trial.value for trial in found.get_trials(deepcopy=False)}


def check_invariants(
    found: optuna.Study, quiet: optuna.Study, watcher: Watcher, orphans: int, budget: int
) -> dict[str, bool]:
    """Return each invariant with whether it holds."""
    trials = found.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    configurations = Counter(str(sorted(trial.params.items())) for trial in complete)
    provenance = {"params", "execution", "curve", "seed", "worker", "attempt", "seconds"}
    steps = [1, 2, 3]
    return {
        "trial numbers are contiguous": [trial.number for trial in trials] == list(range(len(trials))),
        "exactly the budget's trials are complete": len(complete) == len(trials) == budget,
        "one configuration is completed once": set(configurations.values()) == {1},
        "value, parameters and provenance are there": all(
            trial.value is not None and provenance <= TrialRecord.of(trial).model_fields_set for trial in complete
        ),
        "every report and every point of the curve is there": all(
            sorted(trial.intermediate_values) == steps == [point.step for point in TrialRecord.of(trial).curve]
            for trial in complete
        ),
        "no trial ran without a worker for twice the grace period": watcher.longest_orphaned < 2 * GRACE_SECONDS,
        "no process outlived the search": orphans == 0,
        "each value is the quiet run's": values_of(found) == values_of(quiet),
        "the search has its result": StudyRecord.of(found).result is not None,
    }


@contextmanager
def database(kind: str, folder: Path) -> Iterator[tuple[str, servers.Server | None]]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'hpo.db'}", None
        return
    server = servers.PostgreSQL()
    try:
        yield server.url(), server
    finally:
        server.remove()


def report(kind: str, chaos: Chaos, watcher: Watcher, held: dict[str, bool], quiet: float, seconds: float) -> None:
    trials = watcher.study.get_trials(deepcopy=False)
    durations = [TrialRecord.of(trial).seconds for trial in trials if trial.state == TrialState.COMPLETE]
    useful = sum(seconds["train"] + seconds["evaluate"] for seconds in durations)
    attempts = Counter(TrialRecord.of(trial).attempt for trial in trials)
    numbers = Table("what", "", title=f"Chaos on {kind}: {len(trials)} trials, {WORKERS} workers", show_header=False)
    for fault, count in sorted(chaos.counts.items()):
        numbers.add_row(fault, str(count))
    load = ", ".join(f"{load:.0f}" for load in os.getloadavg())
    numbers.add_row("load of the machine, cores", f"{load}; {os.cpu_count()}")
    numbers.add_row("seconds: quiet run, this one", f"{quiet:.0f}, {seconds:.0f}")
    numbers.add_row("trials by attempts", ", ".join(f"{count} × {n}" for n, count in sorted(attempts.items())))
    numbers.add_row(
        "work redone", f"{watcher.seconds_lost:.0f} s of {useful:.0f} s, {watcher.seconds_lost / useful:.1%}"
    )
    numbers.add_row("longest time without a living worker", f"{watcher.longest_orphaned:.0f} s")
    numbers.add_row(
        "exit codes of workers", ", ".join(f"{n} × {code}" for code, n in sorted(chaos.fleet.codes.items()))
    )
    for name, holds in held.items():
        numbers.add_row(name, "held" if holds else "NOT HELD")
    console.show(numbers)
    for trial in trials:
        if trial.state != TrialState.COMPLETE:
            console.note(f"trial {trial.number} is {trial.state.name}: {TrialRecord.of(trial).failure or 'no reason'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="duration of the faults")
    parser.add_argument("--storage", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--trials", type=int, help="by default 13 a minute, which outlast the faults on 2 idle cores")
    parser.add_argument(
        "--every", type=float, default=15.0, help="seconds between two faults; use more on a busy machine"
    )
    parser.add_argument("--rows", type=int, default=1000, help="training rows")
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults")
    arguments = parser.parse_args()
    trials = arguments.trials or round(13 * arguments.minutes)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="hpo-chaos-"))
    os.environ["HPO_HOME"] = str(folder / "home")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with database(arguments.storage, folder) as (url, server):
        found, seconds = [], []
        for name in ("quiet", "chaos"):
            storage = open_storage(url)
            watcher = Watcher(storage, create(study(name, folder, trials, arguments.rows), storage))
            fleet = Fleet(name, url, folder / f"{name}.log")
            crashed_server = server if name == "chaos" else None
            chaos = Chaos(fleet, watcher, crashed_server, arguments.minutes * 60, arguments.every, arguments.seed)
            console.note(f"{name}: {trials} trials")
            try:
                seconds.append(run(watcher, fleet, chaos if name == "chaos" else None))
                orphans = fleet.wait()
            finally:
                fleet.kill()  # also if this benchmark is terminated
            found.append(watcher.study)
        held = check_invariants(found[1], found[0], watcher, orphans, trials)
        report(arguments.storage, chaos, watcher, held, seconds[0], seconds[1])
    if not all(held.values()):
        console.error(f"an invariant did not hold; all files are kept in {folder}")
        raise SystemExit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
