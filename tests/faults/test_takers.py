"""Workers that die at the worst moment, and those who take their trials over: each exactly once."""

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
from tests.faults.search import PATIENCE

TAKERS = 8
spawn = multiprocessing.get_context("spawn")


def die_before_the_first_beat(url: str) -> None:
    storage = open_storage(url)
    study = optuna.load_study(study_name="study", storage=storage)
    assert Worker(storage, study, "cpu").claim(study) is not None
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_taking_over(url: str, committed: bool) -> None:
    storage = open_storage(url)
    study = optuna.load_study(study_name="study", storage=storage)
    if committed:
        assert reclaim(storage, study) == [0]
    else:
        reclaiming._release = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        reclaim(storage, study)
    os.kill(os.getpid(), signal.SIGKILL)


def take_over_at_once(url: str, barrier: Any, answers: Any) -> None:
    storage = open_storage(url)
    study = optuna.load_study(study_name="study", storage=storage)
    barrier.wait(PATIENCE)
    answers.put(reclaim(storage, study))


def killed(target: Callable[..., None], *given: Any) -> None:
    process = spawn.Process(target=target, args=given)
    process.start()
    process.join(PATIENCE)
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


def test_killed_before_the_first_beat(database: str) -> None:
    killed(die_before_the_first_beat, database)
    with opened(database) as (storage, study):
        assert study.trials[0].state == TrialState.RUNNING
        assert reclaim(storage, study) == [0]
        worker = Worker(storage, study, "cpu")
        trial = worker.claim(study)
        assert trial is not None and (trial.number, worker.attempt) == (0, 2)
        worker.close()


@pytest.mark.parametrize("committed", [False, True])
def test_a_taker_that_dies_takes_over_exactly_once(database: str, committed: bool) -> None:
    killed(die_before_the_first_beat, database)
    killed(die_while_taking_over, database, committed)
    with opened(database) as (storage, study):
        assert reclaim(storage, study) == ([] if committed else [0])
        assert study.trials[0].state == TrialState.WAITING and deaths(storage, study) == 1
        assert reclaim(storage, study) == []


@pytest.mark.slow
def test_of_many_takers_one_gets_it(database: str) -> None:
    killed(die_before_the_first_beat, database)
    barrier, answers = spawn.Barrier(TAKERS), spawn.Queue()
    processes = [spawn.Process(target=take_over_at_once, args=(database, barrier, answers)) for _ in range(TAKERS)]
    for process in processes:
        process.start()
    taken = [answers.get(timeout=PATIENCE) for _ in processes]
    for process in processes:
        process.join(PATIENCE)
    assert sorted(taken) == [[]] * (TAKERS - 1) + [[0]]
    with opened(database) as (storage, study):
        assert deaths(storage, study) == 1
