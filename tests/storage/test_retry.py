"""Outages of the database: training continues, reports are kept, and a trial's result is retried."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError, PendingRollbackError

from hpo.errors import StorageError
from hpo.storage import retry
from hpo.storage.lease import Worker
from hpo.storage.retry import RetryPolicy, StorageUnavailable, is_transient
from hpo.storage.storage import Storage, open_storage

pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@pytest.fixture
def worker(url: str, study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A worker with a lock timeout of 50 ms."""
    monkeypatch.setattr("hpo.storage.storage.engine_options", lambda url: {"connect_args": {"timeout": 0.05}})
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.01)
    worker = Worker(open_storage(url), study, "cpu", threading.Event())
    yield worker
    worker.close()


@contextmanager
def outage(url: str) -> Iterator[None]:
    """Lock the database: nobody else can write."""
    holder = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        holder.close()


def its_study(worker: Worker) -> optuna.Study:
    return optuna.load_study(study_name="study", storage=worker.storage, sampler=RandomSampler(seed=1))


def test_reports_are_kept_in_the_outbox_and_the_result_is_retried(url: str, worker: Worker) -> None:
    study = its_study(worker)
    trial = worker.claim(study)
    assert trial is not None
    trial.report(0.1, 1)
    with ThreadPoolExecutor(1) as pool:
        with outage(url):
            trial.report(0.2, 2)
            trial.report(0.3, 3)  # neither blocks
            worker.record_checkpoint(trial, "/somewhere")
            finishing = pool.submit(worker.finish, study, trial, TrialState.COMPLETE, 0.3)
            time.sleep(0.3)
            assert not finishing.done()
        finishing.result(timeout=30)
    stored = study.trials[0]
    assert stored.state == TrialState.COMPLETE and stored.value == 0.3
    assert stored.intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3}


def test_release_writes_the_reports_of_the_outbox(url: str, worker: Worker) -> None:
    study = its_study(worker)
    trial = worker.claim(study)
    assert trial is not None
    with outage(url):
        trial.report(0.2, 1)
    worker.release(trial)
    assert study.trials[0].intermediate_values == {1: 0.2} and study.trials[0].state == TrialState.WAITING


def test_pruning_is_skipped_during_an_outage(worker: Worker) -> None:
    def should_prune() -> bool:
        calls.append(1)
        raise StorageUnavailable("unavailable")

    calls: list[int] = []
    assert not worker.storage.unless_unavailable(should_prune) and calls
    assert worker.storage.unless_unavailable(lambda: True)
    worker.storage.is_unavailable = True
    assert not worker.storage.unless_unavailable(lambda: True)


def test_result_whose_response_was_lost_is_the_workers_own(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = its_study(worker)
    trial = worker.claim(study)
    assert trial is not None
    write = optuna.storages.RDBStorage.set_trial_state_values

    def lose_response(self: Any, trial_id: int, state: TrialState, values: Any = None) -> bool:
        write(self, trial_id, state, values)
        monkeypatch.undo()
        raise OperationalError("COMMIT", {}, sqlite3.OperationalError("database is locked"))

    monkeypatch.setattr(optuna.storages.RDBStorage, "set_trial_state_values", lose_response)
    worker.finish(study, trial, TrialState.COMPLETE, 0.5)
    assert study.trials[0].value == 0.5
    assert "by another process" not in caplog.text
    assert worker.claim(study) is not None


def test_retry_policy_gives_up(url: str, study: optuna.Study) -> None:
    def fail() -> None:
        tries.append(1)
        raise StorageUnavailable("unavailable")

    tries: list[int] = []
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(StorageUnavailable):
        RetryPolicy(3600, cancel).call(fail)
    with pytest.raises(StorageUnavailable):
        RetryPolicy().call(fail)
    assert len(tries) == 2
    with pytest.raises(StorageUnavailable):
        RetryPolicy(0.3).call(fail)
    assert len(tries) > 3
    with pytest.raises(StorageError, match="wrong"):
        RetryPolicy(3600).call(lambda: _raise(StorageError("wrong")))


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("backend", "message", "transient"),
    [
        ("sqlite", "database is locked", True),
        ("sqlite", "database or disk is full", False),
        ("sqlite", "no such table: trials", False),
        ("postgresql", "the connection is closed", True),
        ("postgresql", "canceling statement due to lock timeout", True),
        ("postgresql", 'password authentication failed for user "me"', False),
        ("postgresql", "could not extend file: No space left on device", False),
        ("mysql", "(1205, 'Lock wait timeout exceeded; try restarting transaction')", True),
        ("mysql", "(1114, \"The table 'trials' is full\")", False),
        ("mysql", "(1045, \"Access denied for user 'me'\")", False),
    ],
)
def test_is_transient(url: str, backend: str, message: str, transient: bool) -> None:
    assert is_transient(OperationalError("SELECT 1", {}, Exception(message)), backend) == transient
    assert is_transient(PendingRollbackError("Can't reconnect"), backend)
    assert not is_transient(ValueError(message), backend)


def test_storage_without_a_worker_does_not_retry(url: str, storage: Storage, study: optuna.Study) -> None:
    with outage(url), pytest.MonkeyPatch.context() as patch:
        patch.setattr("hpo.storage.storage.engine_options", lambda url: {"connect_args": {"timeout": 0.05}})
        impatient = open_storage(url)
        with pytest.raises(StorageUnavailable, match="locked"):
            impatient.set_study_user_attr(study._study_id, "a", 1)
