"""A worker and its trials: the order of the queue, lost leases and heartbeats."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from hpo.errors import StorageError
from hpo.storage import lease
from hpo.storage.budget import (
    request_stop,
)
from hpo.storage.lease import LeaseLost, Worker
from hpo.storage.models import LeaseRow, WorkerRow
from hpo.storage.storage import Storage, open_storage

MakeStudy = Callable[..., optuna.Study]


@contextmanager
def another_worker(url: str, name: str = "study") -> Iterator[tuple[Worker, optuna.Study]]:
    """A worker with its own storage, as in another process."""
    storage = open_storage(url)
    study = optuna.load_study(study_name=name, storage=storage)
    worker = Worker(storage, study, "cpu")
    yield worker, study
    worker.close()


def lease_row(storage: Storage, trial: optuna.Trial) -> LeaseRow | None:
    with storage.reading() as session:
        row = session.get(LeaseRow, trial._trial_id)
        if row is not None:
            session.expunge(row)
        return row


def test_claims_released_then_enqueued_then_new_trials(worker: Worker, study: optuna.Study) -> None:
    for x in (0.25, 0.75):
        study.enqueue_trial({"x": x})
    first = worker.claim(study)
    assert first is not None and (first.number, first.suggest_float("x", 0, 1), worker.attempt) == (0, 0.25, 1)
    first.report(0.5, 1)
    worker.record_checkpoint(first, "/checkpoints/1")
    worker.release(first, "/checkpoints/2")
    assert worker.attempt == 0 and study.trials[0].state == TrialState.WAITING

    again = worker.claim(study)
    assert again is not None and (again.number, worker.attempt, worker.checkpoint) == (0, 2, "/checkpoints/2")
    assert again.suggest_float("x", 0, 1) == 0.25 and study.trials[0].intermediate_values == {1: 0.5}
    again.report(0.6, 2)
    worker.finish(study, again, TrialState.COMPLETE, 0.6)

    second = worker.claim(study)
    assert second is not None and (second.number, second.suggest_float("x", 0, 1)) == (1, 0.75)
    worker.finish(study, second, TrialState.PRUNED)
    third = worker.claim(study)
    assert third is not None and (third.number, worker.attempt, worker.checkpoint) == (2, 1, None)
    third.suggest_float("x", 0, 1)
    worker.finish(study, third, TrialState.FAIL)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "FAIL"]
    assert study.trials[0].intermediate_values == {1: 0.5, 2: 0.6}
    assert all(lease_row(worker.storage, trial) is None for trial in (first, second, third))


def test_claim_whose_response_was_lost_is_found_again(worker: Worker, study: optuna.Study) -> None:
    first = worker.claim(study)
    assert first is not None
    worker._holder.clear()  # as if the response to the commit was lost
    again = worker.claim(study)
    assert again is not None and (again.number, worker.attempt) == (0, 1)
    worker._holder.clear()
    assert study.ask().number == 0
    assert len(study.trials) == 1


def test_worker_without_the_lease_cannot_write(url: str, worker: Worker, study: optuna.Study) -> None:
    late = worker.claim(study)
    assert late is not None
    late.suggest_float("x", 0, 1)
    with worker.storage.transaction() as session:
        row = session.get_one(LeaseRow, late._trial_id)
        row.worker_id = None
    plain = RDBStorage(url)
    plain.set_trial_state_values(late._trial_id, TrialState.WAITING)
    plain.engine.dispose()
    with another_worker(url) as (other, same_study):
        resumed = other.claim(same_study)
        assert resumed is not None and (resumed.number, other.attempt) == (0, 2)
        resumed.report(0.5, 1)
        for write in (
            lambda: late.report(0.9, 1),
            lambda: late.report(0.9, 2),
            lambda: late.suggest_float("y", 0, 1),
            lambda: late.set_user_attr("a", 1),
            lambda: late.storage.set_trial_system_attr(late._trial_id, "a", 1),
            lambda: worker.record_checkpoint(late, "/old"),
            lambda: worker.release(late),
            lambda: study.tell(late, 0.9),
            lambda: worker.finish(study, late, TrialState.COMPLETE, 0.9),
        ):
            with pytest.raises(LeaseLost):
                write()
        other.finish(same_study, resumed, TrialState.COMPLETE, 0.5)
    stored = study.trials[0]
    assert (stored.value, stored.intermediate_values) == (0.5, {1: 0.5})
    assert (stored.user_attrs, list(stored.params)) == ({}, ["x"])
    following = worker.claim(study)
    assert following is not None and following.number == 1  # the worker continues


def test_older_attempt_of_the_same_worker_cannot_write(worker: Worker, study: optuna.Study) -> None:
    trial = worker.claim(study)
    assert trial is not None
    with worker.storage.transaction() as session:
        session.get_one(LeaseRow, trial._trial_id).attempt = 2
    with pytest.raises(LeaseLost, match="attempt 1; the trial is at attempt 2"):
        trial.report(0.5, 1)


def test_result_of_another_process_is_kept(
    url: str, worker: Worker, study: optuna.Study, caplog: pytest.LogCaptureFixture
) -> None:
    trial = worker.claim(study)
    assert trial is not None
    plain = RDBStorage(url)
    dashboard = optuna.load_study(study_name="study", storage=plain)
    dashboard.tell(trial.number, 0.25)
    plain.engine.dispose()
    with pytest.raises(LeaseLost, match="COMPLETE"):
        trial.report(0.9, 1)
    with caplog.at_level(logging.WARNING):
        worker.finish(study, trial, TrialState.COMPLETE, 0.9)
    assert "trial 0 was set to COMPLETE" in caplog.text
    assert study.trials[0].value == 0.25 and lease_row(worker.storage, trial) is None
    assert worker.claim(study) is not None


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), None])
def test_value_that_is_not_finite_fails_the_trial(worker: Worker, study: optuna.Study, value: float | None) -> None:
    trial = worker.claim(study)
    assert trial is not None
    worker.finish(study, trial, TrialState.COMPLETE, value)
    assert study.trials[0].state == TrialState.FAIL
    assert study.trials[0].user_attrs == {"failure": f"its value was {value}"}


def test_close_releases_the_trial_and_ends_the_row(worker: Worker, study: optuna.Study) -> None:
    trial = worker.claim(study)
    assert trial is not None
    worker.close()
    assert study.trials[0].state == TrialState.WAITING
    with worker.storage.reading() as session:
        row = session.get_one(WorkerRow, worker.worker_id)
        assert (row.ended, row.phase, row.trial) == (True, "gone", None)
    row = lease_row(worker.storage, trial)
    assert row is not None and (row.worker_id, row.deaths) == (None, 0)


def wait_until(event: str, reached: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, event
        time.sleep(0.02)


def worker_row(storage: Storage, worker: Worker) -> WorkerRow:
    with storage.reading() as session:
        row = session.get_one(WorkerRow, worker.worker_id)
        session.expunge(row)
        return row


def test_heartbeats_write_the_progress_and_read_the_stop(
    url: str, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    with another_worker(url) as (worker, same_study):
        worker.progress(phase="search", trial=3, step=2, epoch=1.5, epochs=4)
        wait_until("the progress was written", lambda: worker_row(worker.storage, worker).phase == "search")
        row = worker_row(worker.storage, worker)
        assert (row.trial, row.step, row.epoch, row.epochs) == (3, 2, 1.5, 4)
        wait_until("the next heartbeat", lambda: worker_row(worker.storage, worker).heartbeat > row.heartbeat + 1)
        request_stop(study)
        wait_until("the stop was received", lambda: worker.stop_requested)
        request_stop(study, stop=False)
        wait_until("the stop was withdrawn", lambda: not worker.stop_requested)
        assert same_study.study_name == "study"


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_heartbeats_continue_after_a_locked_database(
    url: str, study: optuna.Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    other = open_storage(url)
    monkeypatch.setattr("hpo.storage.storage.engine_options", lambda url: {"connect_args": {"timeout": 0.1}})
    with another_worker(url) as (worker, _):
        wait_until("the first heartbeats", lambda: worker_row(other, worker).heartbeat > 1)
        with other.transaction() as session:
            session.get(WorkerRow, worker.worker_id)
            wait_until("a heartbeat failed", lambda: "cannot send its heartbeat" in caplog.text)
            stuck = session.get_one(WorkerRow, worker.worker_id).heartbeat
        wait_until("the next heartbeat", lambda: worker_row(other, worker).heartbeat > stuck + 1)
        assert "database is locked" in caplog.text and "sends heartbeats again" in caplog.text


def test_deleted_study_stops_its_workers(url: str, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    make_study("doomed")
    with another_worker(url, "doomed") as (worker, study):
        optuna.delete_study(study_name="doomed", storage=study._storage)
        wait_until("the worker received the stop", lambda: worker.stop_requested)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_locked_database_is_reported(url: str, study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.storage.storage.engine_options", lambda url: {"connect_args": {"timeout": 0.05}})
    impatient = open_storage(url)
    with open_storage(url).transaction() as session:
        session.get(WorkerRow, 1)
        with pytest.raises(StorageError, match=r"hpo\.db could not be used: database is locked"):
            impatient.set_study_user_attr(study._study_id, "a", 1)
