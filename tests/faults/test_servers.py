"""Faults of a database server while workers train: no trial is lost or run twice, and every wait ends."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from sqlalchemy import create_engine, text

from hpo.errors import StorageError
from hpo.storage import lease, schema
from hpo.storage.budget import set_budget
from hpo.storage.lease import Worker
from hpo.storage.reclaim import HeartbeatMonitor
from hpo.storage.storage import StorageUnavailable, open_storage
from hpo.storage.urls import engine_options, parse_url
from tests import servers
from tests.faults.conftest import TRIALS, with_study
from tests.faults.search import TIMEOUT, wait_until

pytestmark = pytest.mark.server

WORKERS, REPORTS = 4, 5


@pytest.fixture(params=sorted(servers.SERVERS))
def server(request: pytest.FixtureRequest) -> servers.Server:
    found: servers.Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def url(server: servers.Server) -> str:
    return with_study(server.url())


@contextmanager
def worker_on(url: str) -> Iterator[tuple[Worker, optuna.Study]]:
    storage = open_storage(url)
    study = optuna.load_study(study_name="study", storage=storage, sampler=RandomSampler())
    worker = Worker(storage, study, "cpu")
    try:
        yield worker, study
    finally:
        worker.close()
        storage.remove_session()
        storage.engine.dispose()


def run_trials(url: str, pause: float = 0.1) -> list[int]:
    """Run a worker with its own engine until no trial is left. Returns the numbers of its trials."""
    done = []
    with worker_on(url) as (worker, study):
        while (trial := worker.claim(study)) is not None:
            x = trial.suggest_float("x", 0, 1)
            for step in range(REPORTS):
                trial.report(x + step, step)
                time.sleep(pause)
            worker.finish(study, trial, TrialState.COMPLETE, x)
            done.append(trial.number)
    return done


def check_invariants(url: str, done: list[int]) -> None:
    storage = open_storage(url)
    trials = optuna.load_study(study_name="study", storage=storage).trials
    assert [trial.number for trial in trials] == list(range(TRIALS)) == sorted(done)
    for trial in trials:
        assert trial.state == TrialState.COMPLETE and trial.value == trial.params["x"]
        assert trial.intermediate_values == {step: trial.value + step for step in range(REPORTS)}
    storage.engine.dispose()


def some_reports(url: str) -> Callable[[], bool]:
    def reached() -> bool:
        storage = open_storage(url)
        study = optuna.load_study(study_name="study", storage=storage)
        found = any(trial.intermediate_values for trial in study.get_trials(states=(TrialState.RUNNING,)))
        storage.engine.dispose()
        return found

    return reached


def run_with_fault(url: str, fault: Callable[[], None]) -> None:
    """Cause the fault while four workers run trials. The result must be that of a run without a fault."""
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(run_trials, url) for _ in range(WORKERS)]
        wait_until(some_reports(url))
        fault()
        done = [number for future in futures for number in future.result(timeout=TIMEOUT)]
    check_invariants(url, done)


def test_dropped_connections_are_replaced(server: servers.Server, url: str) -> None:
    def cut() -> None:
        for _ in range(4):
            server.drop_connections()
            time.sleep(0.3)

    run_with_fault(url, cut)


def test_crashed_server_is_waited_for(server: servers.Server, url: str) -> None:
    def crash() -> None:
        server.crash()
        time.sleep(3)
        server.start()

    run_with_fault(url, crash)


def test_no_trial_is_reclaimed_after_an_outage_longer_than_the_grace_period(
    server: servers.Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.1)
    storage = open_storage(url)
    with worker_on(url) as (worker, study):
        trial = worker.claim(study)
        assert trial is not None
        monitor, reclaimed = HeartbeatMonitor(study, grace_seconds=2.0), []

        def poll() -> None:
            try:
                reclaimed.extend(monitor.poll(storage))
            except StorageUnavailable:
                failed.append(1)

        failed: list[int] = []
        poll()
        server.crash()
        until = time.monotonic() + 5
        while time.monotonic() < until:
            trial.report(0.5, len(failed))  # into the outbox: training does not wait
            poll()
            time.sleep(0.2)
        assert failed and worker.storage.is_unavailable
        server.start()
        for _ in range(8):
            poll()
            time.sleep(0.2)
        assert reclaimed == []
        worker.finish(study, trial, TrialState.COMPLETE, 0.5)
        assert study.trials[0].state == TrialState.COMPLETE
        assert len(study.trials[0].intermediate_values) > 1
    storage.engine.dispose()


def test_suspended_server_times_out(server: servers.Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel of a suspended server still acknowledges: only a timeout of the client ends the wait."""
    monkeypatch.setattr("hpo.storage.urls.RESPONSE_SECONDS", 2)
    storage = open_storage(url)
    study = optuna.load_study(study_name="study", storage=storage)
    server.suspend()
    try:
        errors: list[BaseException] = []

        def write() -> None:
            try:
                study.set_user_attr("a", 1)
            except StorageError as error:
                errors.append(error)

        writing = threading.Thread(target=write, daemon=True)
        writing.start()
        writing.join(60)
        assert not writing.is_alive() and isinstance(errors[0], StorageUnavailable)
        assert servers.PASSWORD not in str(errors[0])
    finally:
        server.resume()
    study.set_user_attr("a", 2)  # the same storage, on a new connection
    assert study.user_attrs["a"] == 2
    storage.engine.dispose()


def test_locked_row_raises_after_the_timeout(server: servers.Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.storage.urls.LOCK_SECONDS", 1)
    storage, other = open_storage(url), open_storage(url)
    study = optuna.load_study(study_name="study", storage=storage)
    with other.engine.begin() as holder:
        holder.execute(text("SELECT * FROM studies FOR UPDATE"))
        with pytest.raises(StorageUnavailable, match=r"[Ll]ock"):
            set_budget(study, 99)
    set_budget(study, TRIALS)
    storage.engine.dispose()
    other.engine.dispose()


def test_worker_waits_for_a_locked_row(server: servers.Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.storage.urls.LOCK_SECONDS", 1)
    other = open_storage(url)
    with worker_on(url) as (worker, study), ThreadPoolExecutor(1) as pool:
        with other.engine.begin() as holder:
            holder.execute(text("SELECT * FROM studies FOR UPDATE"))
            claiming = pool.submit(worker.claim, study)
            time.sleep(2.5)
            assert not claiming.done()
        trial = claiming.result(timeout=TIMEOUT)
        assert trial is not None and trial.number == 0
    other.engine.dispose()


def test_heartbeats_continue_after_a_lock_and_no_trial_is_reclaimed(
    server: servers.Server, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hpo.storage.urls.LOCK_SECONDS", 1)
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.1)
    other = open_storage(url)
    with worker_on(url) as (worker, study):
        trial = worker.claim(study)
        assert trial is not None
        with other.engine.begin() as holder:
            holder.execute(text("SELECT * FROM hpo_workers FOR UPDATE"))
            wait_until(lambda: "cannot send its heartbeat" in caplog.text)
        wait_until(lambda: "sends heartbeats again" in caplog.text)
        monitor = HeartbeatMonitor(study, grace_seconds=3.0)
        for _ in range(8):
            assert monitor.poll(other) == []
            time.sleep(0.5)
        worker.finish(study, trial, TrialState.COMPLETE, 1.0)
    other.engine.dispose()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE hpo_schema SET version = 99", "created by a newer hpo"),
        ("UPDATE alembic_version SET version_num = 'v99.0.0.a'", "created by a newer Optuna"),
        ("UPDATE alembic_version SET version_num = 'v2.6.0.a'", "optuna storage upgrade"),
    ],
)
def test_tables_of_another_version_raise_and_are_not_changed(
    server: servers.Server, url: str, statement: str, message: str
) -> None:
    engine = create_engine(url)

    def contents() -> list[Any]:
        tables = ("hpo_schema", "alembic_version", "version_info", "studies", "hpo_studies")
        with engine.connect() as connection:
            return [connection.execute(text(f"SELECT * FROM {table}")).all() for table in tables]

    with engine.begin() as connection:
        connection.execute(text(statement))
    before = contents()
    with pytest.raises(StorageError, match=message) as raised:
        open_storage(url)
    assert contents() == before and servers.PASSWORD not in str(raised.value)
    engine.dispose()


def test_wrong_password_raises_at_once_and_stopped_server_after_the_wait(server: servers.Server, url: str) -> None:
    wrong = url.replace(servers.PASSWORD.replace("@", "%40"), "wr0ng")
    with pytest.raises(StorageError, match="the server refuses") as raised:
        open_storage(wrong)
    assert "wr0ng" not in str(raised.value)
    unused_port = url.replace(str(server.port), str(servers.free_port()))
    with pytest.raises(StorageError, match="did not respond for 1 seconds") as raised:
        open_storage(unused_port, wait_seconds=1)
    assert "s3cr3t" not in str(raised.value)


def test_slow_creation_of_tables_keeps_its_lock(server: servers.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends idle transactions and releases their locks: the next process found half of the tables."""
    monkeypatch.setattr("hpo.storage.urls.IDLE_SECONDS", 1)
    url = parse_url(server.url())
    engine = create_engine(url, **engine_options(url))
    with schema._schema_lock(engine, url):
        time.sleep(2.5)
        with engine.connect() as other:
            assert not other.scalar(text(schema._SERVER_LOCKS[url.get_backend_name()][0]))
    engine.dispose()


def test_time_zones_do_not_make_a_worker_look_dead(
    server: servers.Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes in different time zones: heartbeats are counted, no clock is read."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setenv("PGTZ", "Pacific/Auckland")
    storage = open_storage(url)
    with worker_on(url) as (worker, study):
        trial = worker.claim(study)
        assert trial is not None
        monkeypatch.setitem(os.environ, "TZ", "America/Los_Angeles")
        time.tzset()
        try:
            monitor = HeartbeatMonitor(study, grace_seconds=3.0)
            for _ in range(20):
                assert monitor.poll(storage) == []
                time.sleep(0.25)
        finally:
            monkeypatch.undo()
            time.tzset()
        worker.finish(study, trial, TrialState.COMPLETE, 1.0)
    storage.engine.dispose()
