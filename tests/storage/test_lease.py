"""One worker and its trials: the order of the queue, the budget, and what one that lost its trial may still say."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from hpo.errors import StorageError, StudyError
from hpo.storage import lease
from hpo.storage.budget import (
    add_seconds,
    exhaust_budget,
    list_studies,
    prune_waiting,
    request_stop,
    seconds_left,
    seconds_run,
    set_budget,
    set_phase,
)
from hpo.storage.lease import LeaseLost, Worker
from hpo.storage.models import LeaseRow, WorkerRow
from hpo.storage.storage import Storage, open_storage
from hpo.storage.transactions import INFRASTRUCTURE, BudgetSpent

MakeStudy = Callable[..., optuna.Study]


@pytest.fixture
def worker(storage: Storage, study: optuna.Study) -> Iterator[Worker]:
    worker = Worker(storage, study, "cpu")
    yield worker
    worker.close()


@contextmanager
def another_worker(url: str, name: str = "study") -> Iterator[tuple[Worker, optuna.Study]]:
    """A worker with a storage of its own, as in another process."""
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


def test_released_trials_come_first_then_the_queue_then_new_ones(worker: Worker, study: optuna.Study) -> None:
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


def test_a_longer_queue_does_not_stretch_the_budget(worker: Worker, study: optuna.Study) -> None:
    set_budget(study, 2)
    for x in range(4):
        study.enqueue_trial({"x": x})
    for _ in range(2):
        trial = worker.claim(study)
        assert trial is not None
        worker.finish(study, trial, TrialState.COMPLETE, 1.0)
    assert worker.claim(study) is None
    set_budget(study, 3)
    begun = worker.claim(study)
    assert begun is not None and begun.number == 2
    worker.release(begun)
    set_budget(study, 1)  # a trial that was begun was counted when it was: it may go on
    resumed = worker.claim(study)
    assert resumed is not None and resumed.number == 2
    worker.finish(study, resumed, TrialState.COMPLETE, 1.0)
    assert prune_waiting(study) == [3]
    assert study.trials[3].state == TrialState.PRUNED


def test_failures_of_the_infrastructure_do_not_count(worker: Worker, study: optuna.Study) -> None:
    set_budget(study, 1)
    for attribute in (INFRASTRUCTURE, INFRASTRUCTURE, "other"):
        trial = worker.claim(study)
        assert trial is not None
        trial.set_user_attr(attribute, True)
        worker.finish(study, trial, TrialState.FAIL)
    assert worker.claim(study) is None


def test_ask_reserves_budget_too_when_acting_for_a_worker(worker: Worker, study: optuna.Study) -> None:
    set_budget(study, 1)
    trial = study.ask()
    assert worker.attempt == 1
    worker.finish(study, trial, TrialState.COMPLETE, 1.0)
    with pytest.raises(BudgetSpent, match="budget of 1 trials"):
        study.ask()
    worker.close()
    assert study.ask().number == 1  # acting for nobody, it is plain Optuna


def test_a_spent_time_and_a_stop_start_no_trial(worker: Worker, study: optuna.Study) -> None:
    set_budget(study, 10, 100.0)
    add_seconds(study, 60)
    assert (seconds_run(study), seconds_left(study)) == (60.0, 40.0)
    trial = worker.claim(study)
    assert trial is not None
    add_seconds(study, 60)
    assert seconds_left(study) == 0.0
    worker.release(trial)
    set_budget(study, 10, None)
    assert seconds_left(study) is None
    request_stop(study)
    assert worker.claim(study) is None and worker.stop_requested
    child = worker.storage.create_child_study("study/confirm", study, 2)
    assert worker.claim(child) is None  # a stop of the parent stops its children
    request_stop(study, stop=False)
    worker._send_heartbeat()
    assert worker.claim(child) is not None and not worker.stop_requested
    set_budget(study, 10, 100.0)
    resumed = worker.claim(study)
    assert resumed is not None and resumed.number == 0  # begun before the time was spent
    worker.finish(study, resumed, TrialState.PRUNED)
    study.enqueue_trial({"x": 1})
    assert worker.claim(study) is None
    assert not worker.stop_requested


def test_a_closed_study_begins_nothing_more_also_when_it_is_opened_again(worker: Worker, study: optuna.Study) -> None:
    child = worker.storage.create_child_study("study/confirm", study, 3)
    trial = worker.claim(child)
    assert trial is not None
    exhaust_budget(child)
    worker.release(trial)
    child = worker.storage.create_child_study("study/confirm", study, 3)
    trial = worker.claim(child)
    assert trial is not None and trial.number == 0
    worker.finish(child, trial, TrialState.PRUNED)
    assert worker.claim(child) is None


def test_a_reservation_whose_answer_got_lost_is_found_again(worker: Worker, study: optuna.Study) -> None:
    first = worker.claim(study)
    assert first is not None
    worker._holder.clear()  # as if the answer to the commit had never come
    again = worker.claim(study)
    assert again is not None and (again.number, worker.attempt) == (0, 1)
    worker._holder.clear()
    assert study.ask().number == 0
    assert len(study.trials) == 1


def test_one_who_lost_the_trial_is_refused_everything(url: str, worker: Worker, study: optuna.Study) -> None:
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
        mine = other.claim(same_study)
        assert mine is not None and (mine.number, other.attempt) == (0, 2)
        mine.report(0.5, 1)
        for refused in (
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
                refused()
        other.finish(same_study, mine, TrialState.COMPLETE, 0.5)
    told = study.trials[0]
    assert (told.value, told.intermediate_values, told.user_attrs, list(told.params)) == (0.5, {1: 0.5}, {}, ["x"])
    following = worker.claim(study)
    assert following is not None and following.number == 1  # the worker lives and goes on


def test_the_same_worker_at_an_older_attempt_is_refused(worker: Worker, study: optuna.Study) -> None:
    trial = worker.claim(study)
    assert trial is not None
    with worker.storage.transaction() as session:
        session.get_one(LeaseRow, trial._trial_id).attempt = 2
    with pytest.raises(LeaseLost, match="attempt 1; the trial is at attempt 2"):
        trial.report(0.5, 1)


def test_a_trial_told_by_someone_else_keeps_that_result(
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
def test_a_value_that_is_no_number_fails_the_trial(worker: Worker, study: optuna.Study, value: float | None) -> None:
    trial = worker.claim(study)
    assert trial is not None
    worker.finish(study, trial, TrialState.COMPLETE, value)
    assert study.trials[0].state == TrialState.FAIL
    assert study.trials[0].user_attrs == {"failure": f"its value was {value}"}


def test_closing_returns_the_trial_and_ends_the_row(worker: Worker, study: optuna.Study) -> None:
    trial = worker.claim(study)
    assert trial is not None
    worker.close()
    assert study.trials[0].state == TrialState.WAITING
    with worker.storage.reading() as session:
        row = session.get_one(WorkerRow, worker.worker_id)
        assert (row.ended, row.phase, row.trial) == (True, "gone", None)
    row = lease_row(worker.storage, trial)
    assert row is not None and (row.worker_id, row.deaths) == (None, 0)


def wait_until(what: str, reached: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def beats(storage: Storage, worker: Worker) -> WorkerRow:
    with storage.reading() as session:
        row = session.get_one(WorkerRow, worker.worker_id)
        session.expunge(row)
        return row


def test_beats_carry_progress_and_bring_the_stop(
    url: str, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    with another_worker(url) as (worker, same_study):
        worker.progress(phase="search", trial=3, step=2, epoch=1.5, epochs=4)
        wait_until("the progress was written", lambda: beats(worker.storage, worker).phase == "search")
        row = beats(worker.storage, worker)
        assert (row.trial, row.step, row.epoch, row.epochs) == (3, 2, 1.5, 4)
        wait_until("it beat again", lambda: beats(worker.storage, worker).heartbeat > row.heartbeat + 1)
        request_stop(study)
        wait_until("the stop arrived", lambda: worker.stop_requested)
        request_stop(study, stop=False)
        wait_until("it was taken back", lambda: not worker.stop_requested)
        assert same_study.study_name == "study"


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_beat_outlives_a_locked_database(
    url: str, study: optuna.Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    other = open_storage(url)
    monkeypatch.setattr("hpo.storage.storage.engine_options", lambda url: {"connect_args": {"timeout": 0.1}})
    with another_worker(url) as (worker, _):
        wait_until("it beats", lambda: beats(other, worker).heartbeat > 1)
        with other.transaction() as session:
            session.get(WorkerRow, worker.worker_id)
            wait_until("beats failed", lambda: "cannot send its heartbeat" in caplog.text)
            stuck = session.get_one(WorkerRow, worker.worker_id).heartbeat
        wait_until("it beats again", lambda: beats(other, worker).heartbeat > stuck + 1)
        assert "database is locked" in caplog.text and "sends heartbeats again" in caplog.text


def test_a_deleted_study_stops_its_workers(url: str, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    make_study("doomed")
    with another_worker(url, "doomed") as (worker, study):
        optuna.delete_study(study_name="doomed", storage=study._storage)
        wait_until("the worker was told to stop", lambda: worker.stop_requested)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_locked_database_is_told_as_such(url: str, study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.storage.storage.engine_options", lambda url: {"connect_args": {"timeout": 0.05}})
    impatient = open_storage(url)
    with open_storage(url).transaction() as session:
        session.get(WorkerRow, 1)
        with pytest.raises(StorageError, match=r"hpo\.db could not be used: database is locked"):
            impatient.set_study_user_attr(study._study_id, "a", 1)


def test_studies_are_listed_without_their_children(storage: Storage, make_study: MakeStudy) -> None:
    first = make_study("first")
    make_study("second")
    child = storage.create_child_study("first/confirm", first, 6)
    assert storage.create_child_study("first/confirm", first, 6)._study_id == child._study_id
    stranger = optuna.create_study(study_name="stranger", storage=storage)
    assert list_studies(storage) == ["first", "second"]
    with pytest.raises(StudyError, match="not created by hpo"):
        set_phase(stranger, "finished")
    with pytest.raises(StudyError, match="not created by hpo"):
        seconds_run(stranger)
