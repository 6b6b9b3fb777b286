"""What the database costs a search: many workers at 1,000 trials of 10 reports, and sleeping trials against the ideal.

    python -m benchmarks.storage_load                         # SQLite with 8 workers, PostgreSQL with 16; 15 minutes
    python -m benchmarks.storage_load --quick                 # smaller numbers: five minutes
    python -m benchmarks.storage_load --system sqlite         # one of them only

PostgreSQL is a private server on this machine (Debian's package), made and removed here. Each worker is a process
with its own connection, as in a search, but without models: a trial suggests, reports and asks the pruner.

Beside them Ray Tune (hpo[ray]): the same sleeps and reports in a trainable, on a Ray of its own with as many trials at
a time, random search and no scheduler; as it comes, where each trial is a new process, and with `reuse_actors`. The
clock starts when a worker begins its first trial (the mean over the workers), so that nobody's start-up counts.
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
MANY = (1, 4, 16)  # workers on trials that sleep
RAY_TUNE = {"ray tune": False, "ray tune, actors reused": True}
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
    cpu_seconds: float = 0.0


def work(url: str, name: str, seed: int, seconds: float, barrier: Barrier, answers: Any) -> None:
    """One worker process: trials of `seconds` each until the budget is spent."""
    with gc_disabled():  # as `hpo.workflow.worker.process` begins
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
    done.began, cpu = time.time(), time.process_time()
    while (trial := timed(done.takes, worker.claim, study)) is not None:
        value = trial.suggest_float("x", 0, 1) - trial.suggest_float("rate", 1e-5, 1e-2, log=True)
        for step in range(1, REPORTS + 1):
            time.sleep(seconds / REPORTS)
            timed(done.reports, trial.report, value * step, step)
            trial.should_prune()
        timed(done.finishes, worker.finish, study, trial, TrialState.COMPLETE, value * REPORTS)
        done.numbers.append(trial.number)
    done.ended, done.cpu_seconds = time.time(), time.process_time() - cpu
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
        spawn.Process(target=work, args=(url, name, seed, seconds, barrier, answers), daemon=True)
        for seed in range(workers)
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


@dataclass(frozen=True)
class Span:
    """One sleeping trial, or all of one worker's: from its first moment to its last, in seconds of `time.time`."""

    began: float
    ended: float


def wall(spans: list[Span], workers: int) -> float:
    """Seconds from the mean of the workers' beginnings to the last end."""
    return max(span.ended for span in spans) - float(np.mean(sorted(span.began for span in spans)[:workers]))


def load(url: str, workers: int, trials: int) -> list[str]:
    """One row: as fast as the database goes."""
    done = search(url, f"load-{workers}", workers, trials, 0.0)
    calls = {name: np.concatenate([getattr(one, name) for one in done]) for name in ("reports", "takes", "finishes")}
    p99 = [f"{1000 * float(np.percentile(calls[name], 99)):.0f}" for name in ("reports", "takes", "finishes")]
    median = f"{1000 * float(np.median(calls['reports'])):.1f}"
    seconds = wall([Span(one.began, one.ended) for one in done], workers)
    cpu = f"{1000 * sum(one.cpu_seconds for one in done) / trials:.0f}"
    return [str(workers), str(trials), f"{trials / seconds:.1f}", median, *p99, cpu]


def row(system: str, workers: int, each: int, seconds: float, spans: list[Span]) -> list[str]:
    """One row: trials that sleep, and the share of the rate that they would reach if all but sleep cost nothing."""
    whole = wall(spans, workers)
    shown = [f"{seconds:g} s", str(workers), system, str(workers * each), f"{workers * each / whole:.2f}"]
    console.note(f"{system}: {workers} worker(s), {seconds:g} s: {each * seconds / whole:.1%} of the ideal rate")
    return [*shown, f"{each * seconds / whole:.1%}"]


def sleep_in_ray_tune(workers: int, trials: int, seconds: float, reuse: bool, folder: Path) -> list[Span]:
    """The spans of so many trials in Ray Tune, `workers` at a time. Raises `AssertionError` where one is missing."""
    from ray import tune

    def trainable(config: dict[str, float]) -> None:
        began, value = time.time(), config["x"] - config["rate"]
        for step in range(1, REPORTS + 1):
            time.sleep(seconds / REPORTS)
            tune.report({"value": value * step, "began": began, "ended": time.time()})

    tuner = tune.Tuner(
        # The shares of 16 cores in all: so many trials at a time, and no more.
        tune.with_resources(trainable, {"cpu": max(MANY) / workers}),
        param_space={"x": tune.uniform(0, 1), "rate": tune.loguniform(1e-5, 1e-2)},
        tune_config=tune.TuneConfig(num_samples=trials, metric="value", mode="max", reuse_actors=reuse),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    found = [result.metrics for result in tuner.fit()]
    assert len(found) == trials and all(last["training_iteration"] == REPORTS for last in found), "lost in Ray Tune"
    return [Span(last["began"], last["ended"]) for last in found]


@contextmanager
def own_ray() -> Iterator[Path]:
    """A Ray on this machine's loopback with room for the most workers; what it writes is in the folder."""
    silent = {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_WARN_THRESHOLD_S": "1e9"}
    os.environ.update(silent, RAY_USAGE_STATS_ENABLED="0")
    import ray
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False  # as in hpo.backends.ray: stay on loopback
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        own: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": folder}
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "num_cpus": max(MANY)}
        ray.init(address="local", object_store_memory=100 * 2**20, **own, **options)
        try:
            sleep_in_ray_tune(max(MANY), max(MANY), 1.0, False, Path(folder))  # its processes are there by now
            yield Path(folder)
        finally:
            ray.shutdown()


@contextmanager
def database_url(database: str) -> Iterator[str]:
    """A new, empty database."""
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
    parser.add_argument("--system", choices=[*WORKERS, "ray"], action="append", help="else all")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    systems = arguments.system or [*WORKERS, "ray"]
    plans = [(10.0, 1), (1.0, 5)] if arguments.quick else [(10.0, 4), (1.0, 10)]
    runs = [(seconds, each, many) for seconds, each in plans for many in MANY]
    loads, sleeps = [], []
    for database in [name for name in WORKERS if name in systems]:
        with database_url(database) as url:
            loads.append([database, *load(url, WORKERS[database], 200 if arguments.quick else 1000)])
            console.note(
                f"{database}: {loads[-1][3]} trials a second without any work, p99 of a report {loads[-1][5]} ms"
            )
            for seconds, each, many in runs:
                done = search(url, f"sleep-{seconds:g}-{many}", many, many * each, seconds)
                spans = [Span(one.began, one.ended) for one in done]
                sleeps.append(row(f"hpo, {database}", many, each, seconds, spans))
    if "ray" in systems:
        with own_ray() as folder:
            for name, reuse in RAY_TUNE.items():
                for seconds, each, many in runs:
                    spans = sleep_in_ray_tune(many, many * each, seconds, reuse, folder)
                    sleeps.append(row(name, many, each, seconds, spans))
    columns = [
        "database",
        "workers",
        "trials",
        "trials/s",
        "report, median ms",
        "report, p99 ms",
        "take, p99",
        "finish, p99",
        "CPU ms a trial",
    ]
    show(f"No work but the database's: {REPORTS} reports a trial", columns, loads)
    columns = ["trial", "workers", "system", "trials", "trials/s", "of the ideal rate"]
    show("Trials that sleep", columns, sorted(sleeps, key=lambda cells: (-len(cells[0]), int(cells[1]))))
    console.note(f"load of the machine at the end: {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
