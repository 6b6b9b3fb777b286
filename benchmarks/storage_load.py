"""The cost of the database: many workers with 1,000 trials of 10 reports, and the overhead on trials that sleep.

    python -m benchmarks.storage_load                         # SQLite with 8 workers, PostgreSQL with 16: 15 minutes
    python -m benchmarks.storage_load --quick                 # smaller numbers: 5 minutes
    python -m benchmarks.storage_load --system sqlite         # only one of them

PostgreSQL is a private server on this machine (Debian's package) for the time of the benchmark. Each worker is a
process with its own connection, as in a search, but without models: a trial suggests, reports and calls the pruner.

For comparison, Ray Tune (extra `ray`) runs the same sleeps and reports in a trainable, on a private Ray with the same
number of concurrent trials, random search and no scheduler: by default, with a process for each trial, and with
`reuse_actors`. The time is measured from the first trial of a worker (the mean over workers), without the startup.
"""

import argparse
import multiprocessing
import os
import queue
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from rich.table import Table

from hpo.core.imports import freeze_gc, gc_disabled
from hpo.reporting.console import console
from hpo.search.factory import build_pruner, build_sampler
from hpo.storage.budget import set_budget
from hpo.storage.lease import Worker
from hpo.storage.storage import open_storage
from tests import servers

REPORTS = 10
WORKERS = {"sqlite": 8, "postgresql": 16}
SLEEPING_WORKERS = (1, 4, 16)  # numbers of workers on trials that sleep
RAY_TUNE = {"ray tune": False, "ray tune, actors reused": True}
spawn = multiprocessing.get_context("spawn")


@dataclass
class Done:
    """The trial numbers of one worker, the seconds of each call, and its times of start and end."""

    numbers: list[int] = field(default_factory=list)
    reports: list[float] = field(default_factory=list)
    claims: list[float] = field(default_factory=list)
    finishes: list[float] = field(default_factory=list)
    started: float = 0.0
    ended: float = 0.0
    cpu_seconds: float = 0.0


def work(url: str, name: str, seed: int, seconds: float, barrier: Barrier, results: Any) -> None:
    """Run a worker process: trials of `seconds` each until the budget is spent."""
    with gc_disabled():  # as in `hpo.workflow.worker.process`
        optuna.logging.set_verbosity(optuna.logging.ERROR)
    freeze_gc()
    storage = open_storage(url)
    study = optuna.load_study(
        study_name=name,
        storage=storage,
        sampler=build_sampler({"name": "tpe"}, False, seed),
        pruner=build_pruner({"name": "none"}),
    )
    worker, done = Worker(storage, study, "cpu"), Done()
    barrier.wait(300)
    done.started, cpu = time.time(), time.process_time()
    while (trial := timed(done.claims, worker.claim, study)) is not None:
        value = trial.suggest_float("x", 0, 1) - trial.suggest_float("rate", 1e-5, 1e-2, log=True)
        for step in range(1, REPORTS + 1):
            time.sleep(seconds / REPORTS)
            timed(done.reports, trial.report, value * step, step)
            trial.should_prune()
        timed(done.finishes, worker.finish, study, trial, TrialState.COMPLETE, value * REPORTS)
        done.numbers.append(trial.number)
    done.ended, done.cpu_seconds = time.time(), time.process_time() - cpu
    worker.close()
    results.put(done)


def timed(seconds: list[float], call: Any, *arguments: Any) -> Any:
    start = time.perf_counter()
    result = call(*arguments)
    seconds.append(time.perf_counter() - start)
    return result


def search(url: str, name: str, workers: int, trials: int, seconds: float) -> list[Done]:
    """Run a study with `workers` processes. Raises `AssertionError` for a trial that is lost or run twice."""
    storage = open_storage(url)
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    set_budget(study, trials)
    barrier, results = spawn.Barrier(workers), spawn.Queue()
    processes = [
        spawn.Process(target=work, args=(url, name, seed, seconds, barrier, results), daemon=True)
        for seed in range(workers)
    ]
    for process in processes:
        process.start()
    done: list[Done] = []
    while len(done) < workers:
        assert all(not process.exitcode for process in processes), "a worker died"
        with suppress(queue.Empty):
            done.append(results.get(timeout=5))
    for process in processes:
        process.join()
    found = study.get_trials(deepcopy=False)
    assert sorted(number for one in done for number in one.numbers) == list(range(trials)), "lost or run twice"
    assert [trial.number for trial in found] == list(range(trials))
    assert all(trial.state == TrialState.COMPLETE and len(trial.intermediate_values) == REPORTS for trial in found)
    storage.engine.dispose()
    return done


@dataclass(frozen=True)
class Span:
    """Start and end of a sleeping trial, or of all trials of a worker, in seconds of `time.time`."""

    started: float
    ended: float


def wall(spans: list[Span], workers: int) -> float:
    """Return the seconds from the mean start of the workers to the last end."""
    return max(span.ended for span in spans) - float(np.mean(sorted(span.started for span in spans)[:workers]))


def load(url: str, workers: int, trials: int) -> list[str]:
    """Measure the rate of trials that do nothing but use the database. Returns one row."""
    done = search(url, f"load-{workers}", workers, trials, 0.0)
    calls = {name: np.concatenate([getattr(one, name) for one in done]) for name in ("reports", "claims", "finishes")}
    p99 = [f"{1000 * float(np.percentile(calls[name], 99)):.0f}" for name in ("reports", "claims", "finishes")]
    median = f"{1000 * float(np.median(calls['reports'])):.1f}"
    seconds = wall([Span(one.started, one.ended) for one in done], workers)
    cpu = f"{1000 * sum(one.cpu_seconds for one in done) / trials:.0f}"
    return [str(workers), str(trials), f"{trials / seconds:.1f}", median, *p99, cpu]


def row(system: str, workers: int, each: int, seconds: float, spans: list[Span]) -> list[str]:
    """Return one row for trials that sleep, with the fraction of the rate that they would have without overhead."""
    elapsed = wall(spans, workers)
    shown = [f"{seconds:g} s", str(workers), system, str(workers * each), f"{workers * each / elapsed:.2f}"]
    console.note(f"{system}: {workers} worker(s), {seconds:g} s: {each * seconds / elapsed:.1%} of the ideal rate")
    return [*shown, f"{each * seconds / elapsed:.1%}"]


def sleep_in_ray_tune(workers: int, trials: int, seconds: float, reuse: bool, folder: Path) -> list[Span]:
    """Run trials in Ray Tune, `workers` at a time. Raises `AssertionError` if one is missing."""
    from ray import tune

    def trainable(config: dict[str, float]) -> None:
        started, value = time.time(), config["x"] - config["rate"]
        for step in range(1, REPORTS + 1):
            time.sleep(seconds / REPORTS)
            tune.report({"value": value * step, "started": started, "ended": time.time()})

    tuner = tune.Tuner(
        # Shares of 16 cores, which limit the number of concurrent trials.
        tune.with_resources(trainable, {"cpu": max(SLEEPING_WORKERS) / workers}),
        param_space={"x": tune.uniform(0, 1), "rate": tune.loguniform(1e-5, 1e-2)},
        tune_config=tune.TuneConfig(num_samples=trials, metric="value", mode="max", reuse_actors=reuse),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    found = [result.metrics for result in tuner.fit()]
    assert len(found) == trials and all(last["training_iteration"] == REPORTS for last in found), "lost in Ray Tune"
    return [Span(last["started"], last["ended"]) for last in found]


@contextmanager
def private_ray() -> Iterator[Path]:
    """Start Ray on loopback, with resources for all workers and its files in the folder that is returned."""
    quiet = {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_WARN_THRESHOLD_S": "1e9"}
    os.environ.update(quiet, RAY_USAGE_STATS_ENABLED="0")
    import ray

    from hpo.backends.ray_internals import start_on_loopback

    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "num_cpus": max(SLEEPING_WORKERS)}
        start_on_loopback(object_store_memory=100 * 2**20, _temp_dir=folder, **options)
        try:
            sleep_in_ray_tune(
                max(SLEEPING_WORKERS), max(SLEEPING_WORKERS), 1.0, False, Path(folder)
            )  # start its processes
            yield Path(folder)
        finally:
            ray.shutdown()


@contextmanager
def database_url(database: str) -> Iterator[str]:
    """The URL of a new, empty database."""
    if database == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder) / 'hpo.db'}"
        return
    server = servers.PostgreSQL()
    try:
        yield server.url()
    finally:
        server.remove()


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    table = Table(*columns, title=title, title_justify="left")
    for cells in rows:
        table.add_row(*cells)
    console.show(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller numbers")
    parser.add_argument("--system", choices=[*WORKERS, "ray"], action="append", help="by default all")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    systems = arguments.system or [*WORKERS, "ray"]
    plans = [(10.0, 1), (1.0, 5)] if arguments.quick else [(10.0, 4), (1.0, 10)]
    runs = [(seconds, each, workers) for seconds, each in plans for workers in SLEEPING_WORKERS]
    loads, sleeps = [], []
    for database in [name for name in WORKERS if name in systems]:
        with database_url(database) as url:
            loads.append([database, *load(url, WORKERS[database], 200 if arguments.quick else 1000)])
            console.note(f"{database}: {loads[-1][3]} trials/s without work, p99 of a report {loads[-1][5]} ms")
            for seconds, each, workers in runs:
                done = search(url, f"sleep-{seconds:g}-{workers}", workers, workers * each, seconds)
                spans = [Span(one.started, one.ended) for one in done]
                sleeps.append(row(f"hpo, {database}", workers, each, seconds, spans))
    if "ray" in systems:
        with private_ray() as folder:
            for name, reuse in RAY_TUNE.items():
                for seconds, each, workers in runs:
                    spans = sleep_in_ray_tune(workers, workers * each, seconds, reuse, folder)
                    sleeps.append(row(name, workers, each, seconds, spans))
    columns = [
        "database",
        "workers",
        "trials",
        "trials/s",
        "report, median ms",
        "report, p99 ms",
        "claim, p99",
        "finish, p99",
        "CPU ms a trial",
    ]
    show(f"Trials without work: {REPORTS} reports a trial", columns, loads)
    columns = ["trial", "workers", "system", "trials", "trials/s", "of the ideal rate"]
    show("Trials that sleep", columns, sorted(sleeps, key=lambda cells: (-len(cells[0]), int(cells[1]))))
    console.note(f"load of the machine at the end: {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
