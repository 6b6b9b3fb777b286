"""Workers that die at the worst moment: each trial is reclaimed exactly once."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpo.storage import reclaim as reclaiming
from hpo.storage.lease import Worker
from hpo.storage.models import LeaseRow
from hpo.storage.reclaim import reclaim
from hpo.storage.storage import Storage, open_storage
from tests.faults.search import TIMEOUT

PROCESSES = 8
spawn = multiprocessing.get_context("spawn")


def die_before_the_first_heartbeat(url: str) -> None:
    storage = open_storage(url)
    study = optuna.load_study(study_name="study", storage=storage)
    assert Worker(storage, study, "cpu").claim(study) is not None
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_reclaiming(url: str, committed: bool) -> None:
    storage = open_storage(url)
    study = optuna.load_study(study_name="study", storage=storage)
    if committed:
        assert reclaim(storage, study) == [0]
    else:
        reclaiming._release = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        reclaim(storage, study)
    os.kill(os.getpid(), signal.SIGKILL)


def reclaim_at_once(url: str, barrier: Any, results: Any) -> None:
    storage = open_storage(url)
    study = optuna.load_study(study_name="study", storage=storage)
    barrier.wait(TIMEOUT)
    results.put(reclaim(storage, study))


def run_killed(target: Callable[..., None], *arguments: Any) -> None:
    process = spawn.Process(target=target, args=arguments)
    process.start()
    process.join(TIMEOUT)
    assert process.exitcode == -signal.SIGKILL


@contextmanager
def opened(url: str) -> Iterator[tuple[Storage, optuna.Study]]:
    storage = open_storage(url)
    yield storage, optuna.load_study(study_name="study", storage=storage)
    storage.remove_session()
    storage.engine.dispose()


def deaths(storage: Storage, study: optuna.Study) -> int:
    with storage.reading() as session:
        return session.get_one(LeaseRow, study.trials[0]._trial_id).deaths


def test_worker_killed_before_its_first_heartbeat(database: str) -> None:
    run_killed(die_before_the_first_heartbeat, database)
    with opened(database) as (storage, study):
        assert study.trials[0].state == TrialState.RUNNING
        assert reclaim(storage, study) == [0]
        worker = Worker(storage, study, "cpu")
        trial = worker.claim(study)
        assert trial is not None and (trial.number, worker.attempt) == (0, 2)
        worker.close()


@pytest.mark.parametrize("committed", [False, True])
def test_process_that_dies_while_reclaiming_reclaims_once(database: str, committed: bool) -> None:
    run_killed(die_before_the_first_heartbeat, database)
    run_killed(die_while_reclaiming, database, committed)
    with opened(database) as (storage, study):
        assert reclaim(storage, study) == ([] if committed else [0])
        assert study.trials[0].state == TrialState.WAITING and deaths(storage, study) == 1
        assert reclaim(storage, study) == []


@pytest.mark.slow
def test_one_of_many_processes_reclaims_the_trial(database: str) -> None:
    run_killed(die_before_the_first_heartbeat, database)
    barrier, results = spawn.Barrier(PROCESSES), spawn.Queue()
    processes = [spawn.Process(target=reclaim_at_once, args=(database, barrier, results)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    reclaimed = [results.get(timeout=TIMEOUT) for _ in processes]
    for process in processes:
        process.join(TIMEOUT)
    assert sorted(reclaimed) == [[]] * (PROCESSES - 1) + [[0]]
    with opened(database) as (storage, study):
        assert deaths(storage, study) == 1
