"""What the database costs a search: many workers at 1,000 trials of 10 reports, and sleeping trials against the ideal.

    python -m benchmarks.storage_load                         # SQLite with 8 workers, PostgreSQL with 16; 12 minutes
    python -m benchmarks.storage_load --quick                 # smaller numbers: two minutes
    python -m benchmarks.storage_load --database sqlite

PostgreSQL is a private server on this machine (Debian's package), made and removed here. Each worker is a process
with its own connection, as in a search, but without models: a trial suggests, reports and asks the pruner.
"""

import argparse
import multiprocessing
import os
import queue
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from rich.table import Table

from hpo import console
from hpo.study.budget import set_budget
from hpo.study.lease import Worker
from hpo.study.sampler import build_pruner, build_sampler
from hpo.study.storage import open_storage
from tests import servers

REPORTS = 10
WORKERS = {"sqlite": 8, "postgresql": 16}
spawn = multiprocessing.get_context("spawn")


@dataclass
class Done:
    """What one worker did: the numbers of its trials, and seconds of each of its calls and of all."""

    numbers: list[int] = field(default_factory=list)
    reports: list[float] = field(default_factory=list)
    takes: list[float] = field(default_factory=list)
    finishes: list[float] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0


def work(url: str, name: str, seed: int, seconds: float, barrier: Barrier, answers: Any) -> None:
    """One worker process: trials of `seconds` each until the budget is spent."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = open_storage(url)
    study = optuna.load_study(
        study_name=name,
        storage=storage,
        sampler=build_sampler({"name": "tpe"}, False, seed),
        pruner=build_pruner({"name": "none"}),
    )
    worker, done = Worker(storage, study, "cpu"), Done()
    barrier.wait(300)
    done.began = time.time()
    while (trial := timed(done.takes, worker.take, study)) is not None:
        value = trial.suggest_float("x", 0, 1) - trial.suggest_float("rate", 1e-5, 1e-2, log=True)
        for step in range(1, REPORTS + 1):
            time.sleep(seconds / REPORTS)
            timed(done.reports, trial.report, value * step, step)
            trial.should_prune()
        timed(done.finishes, worker.finish, study, trial, TrialState.COMPLETE, value * REPORTS)
        done.numbers.append(trial.number)
    done.ended = time.time()
    worker.close()
    answers.put(done)


def timed(seconds: list[float], call: Any, *arguments: Any) -> Any:
    began = time.perf_counter()
    answer = call(*arguments)
    seconds.append(time.perf_counter() - began)
    return answer


def search(url: str, name: str, workers: int, trials: int, seconds: float) -> list[Done]:
    """A study of `trials` trials on so many worker processes. Raises `AssertionError` where one is lost or doubled."""
    storage = open_storage(url)
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    set_budget(study, trials)
    barrier, answers = spawn.Barrier(workers), spawn.Queue()
    processes = [
        spawn.Process(target=work, args=(url, name, seed, seconds, barrier, answers)) for seed in range(workers)
    ]
    for process in processes:
        process.start()
    done: list[Done] = []
    while len(done) < workers:
        assert all(not process.exitcode for process in processes), "a worker died"
        with suppress(queue.Empty):
            done.append(answers.get(timeout=5))
    for process in processes:
        process.join()
    found = study.get_trials(deepcopy=False)
    assert sorted(number for one in done for number in one.numbers) == list(range(trials)), "lost or done twice"
    assert [trial.number for trial in found] == list(range(trials))
    assert all(trial.state == TrialState.COMPLETE and len(trial.intermediate_values) == REPORTS for trial in found)
    storage.engine.dispose()
    return done


def wall(done: list[Done]) -> float:
    return max(one.ended for one in done) - min(one.began for one in done)


def load(url: str, workers: int, trials: int) -> list[str]:
    """One row: as fast as the database goes."""
    done = search(url, f"load-{workers}", workers, trials, 0.0)
    calls = {name: np.concatenate([getattr(one, name) for one in done]) for name in ("reports", "takes", "finishes")}
    p99 = [f"{1000 * float(np.percentile(calls[name], 99)):.0f}" for name in ("reports", "takes", "finishes")]
    median = f"{1000 * float(np.median(calls['reports'])):.0f}"
    return [str(workers), str(trials), f"{trials / wall(done):.1f}", median, *p99]


def rate(url: str, workers: int, each: int, seconds: float) -> list[str]:
    """One row: trials that sleep, and the share of the rate that they would reach if the database cost nothing."""
    done = search(url, f"sleep-{seconds:g}-{workers}", workers, workers * each, seconds)
    share = each * seconds / wall(done)
    return [f"{seconds:g} s", str(workers), str(workers * each), f"{workers * each / wall(done):.2f}", f"{share:.1%}"]


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    shown = Table(*columns, title=title)
    for row in rows:
        shown.add_row(*row)
    console.show(shown)


def measure(database: str, url: str, quick: bool) -> None:
    workers, trials = WORKERS[database], 200 if quick else 1000
    columns = ["workers", "trials", "trials/s", "report, median ms", "report, p99 ms", "take, p99", "finish, p99"]
    table(f"{database}: no work but the database's", columns, [load(url, workers, trials)])
    console.note(f"load of the machine: {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores, these workers included")
    plans = [(10.0, 1), (1.0, 8)] if quick else [(10.0, 6), (1.0, 40)]
    rows = [rate(url, many, each, seconds) for seconds, each in plans for many in (1, 4, 16)]
    table(f"{database}: trials that sleep", ["trial", "workers", "trials", "trials/s", "of the ideal rate"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller numbers")
    parser.add_argument("--database", choices=sorted(WORKERS), action="append", help="else both")
    arguments = parser.parse_args()
    for database in arguments.database or WORKERS:
        if database == "sqlite":
            with tempfile.TemporaryDirectory() as folder:
                measure(database, f"sqlite:///{Path(folder) / 'hpo.db'}", arguments.quick)
            continue
        server = servers.PostgreSQL()
        try:
            measure(database, server.url(), arguments.quick)
        finally:
            server.remove()


if __name__ == "__main__":
    main()
