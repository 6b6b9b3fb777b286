"""The budget and state of a study: which trials count, and what may start."""

import threading
from collections.abc import Callable

import optuna
import pytest
from optuna.trial import TrialState

from hpo.errors import StudyError
from hpo.storage.budget import (
    add_seconds,
    exhaust_budget,
    list_studies,
    prune_waiting,
    request_stop,
    requeue_failed,
    seconds_left,
    seconds_run,
    set_budget,
    set_phase,
)
from hpo.storage.lease import Worker
from hpo.storage.records.trial import TrialRecord
from hpo.storage.storage import Storage, open_storage
from hpo.storage.transactions import INFRASTRUCTURE, BudgetSpent

MakeStudy = Callable[..., optuna.Study]


def test_queue_longer_than_budget_starts_no_further_trial(worker: Worker, study: optuna.Study) -> None:
    set_budget(study, 2)
    for x in range(4):
        study.enqueue_trial({"x": x})
    for _ in range(2):
        trial = worker.claim(study)
        assert trial is not None
        worker.finish(study, trial, TrialState.COMPLETE, 1.0)
    assert worker.claim(study) is None
    set_budget(study, 3)
    started = worker.claim(study)
    assert started is not None and started.number == 2
    worker.release(started)
    set_budget(study, 1)  # a started trial was counted when it started: it may be resumed
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


def test_ask_reserves_budget_for_the_lease_holder(worker: Worker, study: optuna.Study) -> None:
    set_budget(study, 1)
    trial = study.ask()
    assert worker.attempt == 1
    worker.finish(study, trial, TrialState.COMPLETE, 1.0)
    with pytest.raises(BudgetSpent, match="budget of 1 trials"):
        study.ask()
    worker.close()
    assert study.ask().number == 1  # without a lease holder, it is plain Optuna


def test_spent_time_and_stop_request_start_no_trial(worker: Worker, study: optuna.Study) -> None:
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
    assert resumed is not None and resumed.number == 0  # started before the time was spent
    worker.finish(study, resumed, TrialState.PRUNED)
    study.enqueue_trial({"x": 1})
    assert worker.claim(study) is None
    assert not worker.stop_requested


def test_exhausted_budget_is_kept_when_the_study_is_opened_again(worker: Worker, study: optuna.Study) -> None:
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


def test_list_studies_omits_child_studies(storage: Storage, make_study: MakeStudy) -> None:
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


def test_failed_runs_of_later_stages_return_to_the_queue_under_their_numbers(
    storage: Storage, study: optuna.Study
) -> None:
    confirm = storage.create_child_study("study/confirm", study, 2)
    runs = [confirm.ask() for _ in range(2)]
    TrialRecord(attempt=3, failure="3 workers died on it").save(runs[0])
    confirm.tell(runs[0], state=TrialState.FAIL)
    confirm.tell(runs[1], 0.5)
    failed = study.ask()
    study.tell(failed, state=TrialState.FAIL)
    assert requeue_failed(study) == 1
    stored = optuna.load_study(study_name=confirm.study_name, storage=open_storage(storage.url)).trials
    assert [trial.state for trial in stored] == [TrialState.WAITING, TrialState.COMPLETE]
    assert "failure" not in stored[0].user_attrs
    again = Worker(open_storage(storage.url), confirm, "cpu", threading.Event())
    trial = again.claim(optuna.load_study(study_name=confirm.study_name, storage=again.storage))
    assert trial is not None and trial.number == 0 and again.attempt == 4
    again.close()
    assert requeue_failed(study, search=True) == 1
