"""Faults of a database server while workers train: nothing is lost, nothing is done twice, no wait is without end."""

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
from tests.faults.search import PATIENCE, wait_until

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


def work_through(url: str, pause: float = 0.1) -> list[int]:
    """One worker with an engine of its own: takes, reports and finishes trials until none is left."""
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


def through_a_fault(url: str, fault: Callable[[], None]) -> None:
    """Four workers at their trials, the fault in the middle: all goes on as if nothing had happened."""
    with ThreadPoolExecutor(WORKERS) as pool:
        works = [pool.submit(work_through, url) for _ in range(WORKERS)]
        wait_until(some_reports(url))
        fault()
        done = [number for work in works for number in work.result(timeout=PATIENCE)]
    check_invariants(url, done)


def test_connections_that_are_cut_cost_nothing(server: servers.Server, url: str) -> None:
    def cut() -> None:
        for _ in range(4):
            server.drop_connections()
            time.sleep(0.3)

    through_a_fault(url, cut)


def test_a_crashed_server_is_waited_for(server: servers.Server, url: str) -> None:
    def crash() -> None:
        server.crash()
        time.sleep(3)
        server.start()

    through_a_fault(url, crash)


def test_after_an_outage_longer_than_the_grace_period_nobody_is_taken_over(
    server: servers.Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.1)
    storage = open_storage(url)
    with worker_on(url) as (worker, study):
        trial = worker.claim(study)
        assert trial is not None
        watch, taken = HeartbeatMonitor(study, grace_seconds=2.0), []

        def poll() -> None:
            try:
                taken.extend(watch.poll(storage))
            except StorageUnavailable:
                failed.append(1)

        failed: list[int] = []
        poll()
        server.crash()
        until = time.monotonic() + 5
        while time.monotonic() < until:
            trial.report(0.5, len(failed))  # into the outbox: the training waits for nothing
            poll()
            time.sleep(0.2)
        assert failed and worker.storage.is_unavailable
        server.start()
        for _ in range(8):
            poll()
            time.sleep(0.2)
        assert taken == []
        worker.finish(study, trial, TrialState.COMPLETE, 0.5)
        assert study.trials[0].state == TrialState.COMPLETE
        assert len(study.trials[0].intermediate_values) > 1
    storage.engine.dispose()


def test_a_black_hole_is_given_up(server: servers.Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel of a stopped server takes what it is sent: only a deadline on this side ends the wait."""
    monkeypatch.setattr("hpo.storage.urls.ANSWER_SECONDS", 2)
    storage = open_storage(url)
    study = optuna.load_study(study_name="study", storage=storage)
    server.freeze()
    try:
        told: list[BaseException] = []

        def ask() -> None:
            try:
                study.set_user_attr("a", 1)
            except StorageError as error:
                told.append(error)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(60)
        assert not asking.is_alive() and isinstance(told[0], StorageUnavailable)
        assert servers.PASSWORD not in str(told[0])
    finally:
        server.thaw()
    study.set_user_attr("a", 2)  # the same storage, on a new connection
    assert study.user_attrs["a"] == 2
    storage.engine.dispose()


def test_a_held_row_is_waited_for_then_told(server: servers.Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_worker_waits_for_a_held_row(server: servers.Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.storage.urls.LOCK_SECONDS", 1)
    other = open_storage(url)
    with worker_on(url) as (worker, study), ThreadPoolExecutor(1) as pool:
        with other.engine.begin() as holder:
            holder.execute(text("SELECT * FROM studies FOR UPDATE"))
            taking = pool.submit(worker.claim, study)
            time.sleep(2.5)
            assert not taking.done()
        trial = taking.result(timeout=PATIENCE)
        assert trial is not None and trial.number == 0
    other.engine.dispose()


def test_a_beat_that_meets_a_lock_goes_on_and_nobody_is_taken_over(
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
        watch = HeartbeatMonitor(study, grace_seconds=3.0)
        for _ in range(8):
            assert watch.poll(other) == []
            time.sleep(0.5)
        worker.finish(study, trial, TrialState.COMPLETE, 1.0)
    other.engine.dispose()


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE hpo_schema SET version = 99", "created by a newer hpo"),
        ("UPDATE alembic_version SET version_num = 'v99.0.0.a'", "created by a newer Optuna"),
        ("UPDATE alembic_version SET version_num = 'v2.6.0.a'", "optuna storage upgrade"),
    ],
)
def test_tables_of_another_version_are_refused_and_left_alone(
    server: servers.Server, url: str, statement: str, says: str
) -> None:
    engine = create_engine(url)

    def contents() -> list[Any]:
        tables = ("hpo_schema", "alembic_version", "version_info", "studies", "hpo_studies")
        with engine.connect() as connection:
            return [connection.execute(text(f"SELECT * FROM {table}")).all() for table in tables]

    with engine.begin() as connection:
        connection.execute(text(statement))
    before = contents()
    with pytest.raises(StorageError, match=says) as told:
        open_storage(url)
    assert contents() == before and servers.PASSWORD not in str(told.value)
    engine.dispose()


def test_a_wrong_password_is_told_at_once_and_a_stopped_server_soon(server: servers.Server, url: str) -> None:
    wrong = url.replace(servers.PASSWORD.replace("@", "%40"), "wr0ng")
    with pytest.raises(StorageError, match="the server refuses") as told:
        open_storage(wrong)
    assert "wr0ng" not in str(told.value)
    nobody = url.replace(str(server.port), str(servers.free_port()))
    with pytest.raises(StorageError, match="did not respond for 1 seconds") as told:
        open_storage(nobody, wait_seconds=1)
    assert "s3cr3t" not in str(told.value)


def test_who_makes_the_tables_slowly_stays_alone(server: servers.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends idle transactions, and their locks: the next process saw half of the tables."""
    monkeypatch.setattr("hpo.storage.urls.IDLE_SECONDS", 1)
    url = parse_url(server.url())
    engine = create_engine(url, **engine_options(url))
    with schema._alone(engine, url):
        time.sleep(2.5)
        with engine.connect() as other:
            assert not other.scalar(text(schema._SERVER_LOCKS[url.get_backend_name()][0]))
    engine.dispose()


def test_time_zones_kill_nobody(server: servers.Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two processes in a zone of its own: beats are counted, no clock is read."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setenv("PGTZ", "Pacific/Auckland")
    storage = open_storage(url)
    with worker_on(url) as (worker, study):
        trial = worker.claim(study)
        assert trial is not None
        monkeypatch.setitem(os.environ, "TZ", "America/Los_Angeles")
        time.tzset()
        try:
            watch = HeartbeatMonitor(study, grace_seconds=3.0)
            for _ in range(20):
                assert watch.poll(storage) == []
                time.sleep(0.25)
        finally:
            monkeypatch.undo()
            time.tzset()
        worker.finish(study, trial, TrialState.COMPLETE, 1.0)
    storage.engine.dispose()
