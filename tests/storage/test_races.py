"""Sixteen processes at once: a cold start, the budget, and the queue."""

import multiprocessing
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from hpo.storage.budget import set_budget
from hpo.storage.lease import Worker
from hpo.storage.storage import open_storage
from tests.servers import DATABASES

PROCESSES, BUDGET, QUEUE = 16, 20, 200
TIMEOUT = 900.0  # seconds: sixteen processes import at once, on a machine that may be busy


@dataclass
class Outcome:
    """The outcome of one process."""

    error: str = ""
    budget: list[int] = field(default_factory=list)
    again: int = 0
    queue: list[tuple[int, int]] = field(default_factory=list)  # trial number and enqueued value


def work_through(worker: Worker, study: optuna.Study) -> list[tuple[int, int]]:
    done = []
    while (trial := worker.claim(study)) is not None:
        x = trial.suggest_int("x", 0, 10_000)
        trial.report(x, 1)
        worker.finish(study, trial, TrialState.COMPLETE, x)
        done.append((trial.number, x))
    return done


def run_process(url: str, barrier: Barrier, results: "multiprocessing.Queue[Outcome]", seed: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    outcome = Outcome()
    try:
        barrier.wait(TIMEOUT)
        storage = open_storage(url)
        studies = [
            optuna.create_study(
                study_name=name, storage=storage, load_if_exists=True, direction="maximize", sampler=RandomSampler(seed)
            )
            for name in ("budget", "queue")
        ]
        worker = Worker(storage, studies[0], "cpu")
        barrier.wait(TIMEOUT)  # all have started
        barrier.wait(TIMEOUT)  # the parent has set the budgets
        outcome.budget = [number for number, _ in work_through(worker, studies[0])]
        barrier.wait(TIMEOUT)
        outcome.again = len(work_through(worker, studies[0]))
        outcome.queue = work_through(worker, studies[1])
        worker.close()
    except Exception as error:  # reported to the test, which fails on it
        outcome.error = repr(error)
        barrier.abort()
    results.put(outcome)


@pytest.fixture(scope="module", params=DATABASES)
def sixteen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Outcome]]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('races') / 'new folder' / 'hpo.db'}"
    else:
        url = request.getfixturevalue(request.param).url()
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(PROCESSES + 1), spawn.Queue()
    processes: list[Any] = [
        spawn.Process(target=run_process, args=(url, barrier, results, seed), daemon=True) for seed in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    with suppress(BrokenBarrierError):  # if a process fails, its error is below
        barrier.wait(TIMEOUT)  # cold start
        barrier.wait(TIMEOUT)
        storage = open_storage(url)
        set_budget(optuna.load_study(study_name="budget", storage=storage), BUDGET)
        queue = optuna.load_study(study_name="queue", storage=storage)
        set_budget(queue, QUEUE)
        for x in range(QUEUE):
            queue.enqueue_trial({"x": x})
        barrier.wait(TIMEOUT)
        barrier.wait(TIMEOUT)
    outcomes = [results.get(timeout=TIMEOUT) for _ in processes]
    for process in processes:
        process.join(TIMEOUT)
    return url, outcomes


def test_sixteen_processes_create_the_database_at_once(sixteen: tuple[str, list[Outcome]]) -> None:
    _, outcomes = sixteen
    assert [one.error for one in outcomes] == [""] * PROCESSES


def test_budget_is_met_exactly(sixteen: tuple[str, list[Outcome]]) -> None:
    url, outcomes = sixteen
    assert sorted(number for one in outcomes for number in one.budget) == list(range(BUDGET))
    assert sum(one.again for one in outcomes) == 0
    trials = optuna.load_study(study_name="budget", storage=open_storage(url)).trials
    assert [trial.number for trial in trials] == list(range(BUDGET))
    assert all(trial.state == TrialState.COMPLETE and trial.value == trial.params["x"] for trial in trials)


def test_each_enqueued_trial_is_claimed_once(sixteen: tuple[str, list[Outcome]]) -> None:
    url, outcomes = sixteen
    done = [job for one in outcomes for job in one.queue]
    assert Counter(done) == Counter((x, x) for x in range(QUEUE))
    trials = optuna.load_study(study_name="queue", storage=open_storage(url)).trials
    assert [trial.value for trial in trials] == list(range(QUEUE))
