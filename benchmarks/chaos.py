"""Chaos: four workers of which one is killed, terminated or frozen every 15 s. Is the answer that of a quiet run?

    python -m benchmarks.chaos                                    # 10 minutes on SQLite, after a quiet run
    python -m benchmarks.chaos --minutes 4 --storage postgresql   # a private server, itself killed twice

A fixed list of configurations of a bundled model is enqueued and searched twice: in quiet, then under faults. Workers
are `hpo worker` processes, replaced as a scheduler would. Needs the data of the quickstart (examples/docstrings.py).
Every invariant of such a search is checked, and each configuration's value held against that of the quiet run.
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
FROZEN_SECONDS = (5.0, 90.0)  # longer than the grace period now and then
SERVER_AWAY_SECONDS = 15.0
MARK = "HPO_CHAOS_FLEET"  # an environment variable by which a fleet's processes are known


def study(name: str, folder: Path, trials: int, rows: int) -> dict[str, Any]:
    """The study: `trials` configurations, all of them enqueued, none pruned."""
    data = folder / "data"
    if not data.exists():
        data.mkdir()
        for split, most in {"train": rows, "validation": 200, "test": 200}.items():
            with (EXAMPLES / "data" / "docstrings" / f"{split}.csv").open() as whole:
                table = list(csv.reader(whole))[: most + 1]
            with (data / f"{split}.csv").open("w", newline="") as part:
                csv.writer(part).writerows(table)
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
    """`WORKERS` processes of `hpo worker`: one that left is replaced until the study is finished."""

    def __init__(self, name: str, url: str, log: Path) -> None:
        self._command = [sys.executable, "-m", "hpo.cli", "worker", "--study", name, "--device", "cpu"]
        self._environment = {**os.environ, "HPO_STORAGE": url, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._environment[MARK] = self._mark = str(log)
        self._log = log
        self.processes: list[subprocess.Popen[bytes]] = []
        self.codes: Counter[int] = Counter()

    def replace(self) -> None:
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

    def leave(self, seconds: float = 300.0) -> int:
        """Wait until all have left by themselves; returns how many had to be killed, children of theirs included."""
        psutil.wait_procs([psutil.Process(p.pid) for p in self.processes if p.poll() is None], seconds)
        orphans = [process for process in psutil.process_iter() if self._is_ours(process)]
        for process in orphans:
            process.kill()
        return len(orphans)

    def _is_ours(self, process: psutil.Process) -> bool:
        """Whether a process is one of the fleet, or descends from one."""
        try:
            return process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False  # another person's, or gone by now


@dataclass
class Held:
    """A running trial as last seen: since when with this attempt, and since when without a living worker."""

    attempt: int
    pid: int
    since: float
    dead_since: float | None = None


@dataclass
class Watcher:
    """What is seen of a study from outside, some times a second."""

    storage: Storage
    study: optuna.Study
    held: dict[int, Held] = field(default_factory=dict)
    longest_ghost: float = 0.0
    seconds_lost: float = 0.0
    frozen: dict[int, tuple[float, int, int, float]] = field(default_factory=dict)
    finished: bool = False

    def look(self) -> None:
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
                one.dead_since = None  # nobody can take over what nobody can read
            return
        now = time.time()
        seen = {}
        for number, attempt, pid in rows:
            one = self.held.get(number)
            if one is None or one.attempt != attempt:
                one = Held(attempt, pid, now)
            if is_alive(pid):
                one.dead_since = None
            else:
                one.dead_since = one.dead_since or now
                self.longest_ghost = max(self.longest_ghost, now - one.dead_since)
            seen[number] = one
        self.held = seen

    def at_stake(self, pid: int) -> tuple[int, int, float]:
        """The trial and attempt of a worker, and the seconds of it that no checkpoint holds."""
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
    """The faults: which, when, to whom."""

    def __init__(
        self, fleet: Fleet, watcher: Watcher, server: servers.Server | None, seconds: float, every: float, seed: int
    ) -> None:
        self.every = every
        self.fleet, self.watcher, self.server = fleet, watcher, server
        self.random = random.Random(seed)
        self.struck: Counter[str] = Counter()
        self.began = time.time()
        self.until = self.began + seconds
        self._next = self.began + every
        self._server_kills = [self.began + seconds * share for share in (1 / 3, 2 / 3)] if server else []
        self._server_back: float | None = None

    @property
    def over(self) -> bool:
        return time.time() >= self.until

    def tick(self) -> None:
        now = time.time()
        self._thaw(now)
        if self._server_back is not None and now >= self._server_back and self.server:
            self.server.start()
            self._server_back = None
        if self._server_kills and now >= self._server_kills[0] and self.server and not self.over:
            self._server_kills.pop(0)
            self.server.crash()
            self.struck["server killed"] += 1
            self._server_back = now + SERVER_AWAY_SECONDS
        if now >= self._next and not self.over:
            self._next = now + self.every
            self._strike(now)

    def _strike(self, now: float) -> None:
        victims = [p for p in self.fleet.processes if p.poll() is None and p.pid not in self.watcher.frozen]
        if not victims:
            return
        victim = self.random.choice(victims)
        fault = self.random.choice(sorted(FAULTS))
        number, attempt, lost = self.watcher.at_stake(victim.pid)
        victim.send_signal(FAULTS[fault])
        self.struck[fault] += 1
        if fault == "kill -9":
            self.watcher.seconds_lost += lost
        if fault == "SIGSTOP":
            wakes = now + self.random.uniform(*FROZEN_SECONDS)
            self.watcher.frozen[victim.pid] = (wakes, number, attempt, lost)

    def _thaw(self, now: float) -> None:
        for pid, (wakes, number, attempt, lost) in list(self.watcher.frozen.items()):
            if now < wakes and not self.over:
                continue
            if self.watcher.attempt_of(number) > attempt:
                self.struck["taken over from a frozen one"] += 1
                self.watcher.seconds_lost += lost
            if psutil.pid_exists(pid):
                psutil.Process(pid).send_signal(signal.SIGCONT)
            del self.watcher.frozen[pid]


def run(watcher: Watcher, fleet: Fleet, chaos: Chaos | None) -> float:
    """Work until the study is finished; returns seconds."""
    began = time.time()
    while not watcher.finished:
        fleet.replace()
        if chaos is not None:
            chaos.tick()
        watcher.look()
        time.sleep(0.25)
    if chaos is not None:
        chaos.until = 0.0
        chaos.tick()
    return time.time() - began


def values_of(found: optuna.Study) -> dict[str, float | None]:
    return {str(sorted(trial.params.items())): trial.value for trial in found.get_trials(deepcopy=False)}


def invariants(
    found: optuna.Study, quiet: optuna.Study, watcher: Watcher, orphans: int, budget: int
) -> dict[str, bool]:
    """What faults.md demands, each with whether it held."""
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
        "no trial ran without a worker for twice the grace period": watcher.longest_ghost < 2 * GRACE_SECONDS,
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
    took = [TrialRecord.of(trial).seconds for trial in trials if trial.state == TrialState.COMPLETE]
    useful = sum(seconds["train"] + seconds["evaluate"] for seconds in took)
    attempts = Counter(TrialRecord.of(trial).attempt for trial in trials)
    numbers = Table("what", "", title=f"Chaos on {kind}: {len(trials)} trials, {WORKERS} workers", show_header=False)
    for fault, many in sorted(chaos.struck.items()):
        numbers.add_row(fault, str(many))
    load = ", ".join(f"{load:.0f}" for load in os.getloadavg())
    numbers.add_row("load of the machine, cores", f"{load}; {os.cpu_count()}")
    numbers.add_row("seconds: quiet run, this one", f"{quiet:.0f}, {seconds:.0f}")
    numbers.add_row("trials by attempts", ", ".join(f"{many} × {n}" for n, many in sorted(attempts.items())))
    numbers.add_row(
        "work redone", f"{watcher.seconds_lost:.0f} s of {useful:.0f} s, {watcher.seconds_lost / useful:.1%}"
    )
    numbers.add_row("longest without a living worker", f"{watcher.longest_ghost:.0f} s")
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
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults go on")
    parser.add_argument("--storage", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--trials", type=int, help="else 13 a minute, which outlast the faults on two quiet cores")
    parser.add_argument("--every", type=float, default=15.0, help="seconds between two; more on a busy machine")
    parser.add_argument("--rows", type=int, default=1000, help="training rows")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
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
            struck = server if name == "chaos" else None
            chaos = Chaos(fleet, watcher, struck, arguments.minutes * 60, arguments.every, arguments.seed)
            console.note(f"{name}: {trials} trials")
            try:
                seconds.append(run(watcher, fleet, chaos if name == "chaos" else None))
                orphans = fleet.leave()
            finally:
                fleet.kill()  # also where this benchmark is ended itself
            found.append(watcher.study)
        held = invariants(found[1], found[0], watcher, orphans, trials)
        report(arguments.storage, chaos, watcher, held, seconds[0], seconds[1])
    if not all(held.values()):
        console.error(f"an invariant did not hold; everything is kept in {folder}")
        raise SystemExit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
