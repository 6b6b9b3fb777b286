"""Workers that die: their trials go on elsewhere, once, and what lives is left alone."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from hpo.core.process import is_known_dead, machine, own_start, process_start
from hpo.errors import StorageError
from hpo.storage import lease
from hpo.storage import reclaim as reclaiming
from hpo.storage.lease import LeaseLost, Worker
from hpo.storage.models import LeaseRow, WorkerRow
from hpo.storage.reclaim import HeartbeatMonitor, reclaim
from hpo.storage.storage import Storage, open_storage


def live_and_report(url: str, parent: Connection) -> None:
    """A worker process: its first trial gets two reports and a checkpoint; then it does what the parent says."""
    lease.HEARTBEAT_SECONDS = 0.05
    storage = open_storage(url)
    study = optuna.load_study(study_name="study", storage=storage, sampler=RandomSampler(seed=2))
    worker = Worker(storage, study, "cpu")
    parent.send(worker.worker_id)
    while (order := parent.recv()) != "leave":
        if order == "take":
            trial = worker.claim(study)
            assert trial is not None
            parent.send(trial.number)
        elif order == "train":
            x = trial.suggest_float("x", 0, 1)
            trial.report(0.1, 1)
            worker.record_checkpoint(trial, "/checkpoints/1")
            trial.report(0.2, 2)
            parent.send(x)
        elif order == "report late":
            refused = True
            with suppress(LeaseLost):  # or into the outbox, where the server ended the connection of the frozen one
                trial.report(0.9, 3)
            with suppress(LeaseLost):
                worker.finish(study, trial, TrialState.COMPLETE, 0.9)
                refused = False
            parent.send(refused)
    worker.close()


@dataclass
class Child:
    process: Any
    pipe: Connection
    worker_id: int

    def do(self, order: str) -> Any:
        self.pipe.send(order)
        assert self.pipe.poll(300), f"no answer to {order!r}"
        return self.pipe.recv()


@contextmanager
def worker_process(url: str) -> Iterator[Child]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=live_and_report, args=(url, theirs), daemon=True)
    process.start()
    assert ours.poll(300)
    yield Child(process, ours, ours.recv())
    process.kill()
    process.join()


def poll_until(storage: Storage, watch: HeartbeatMonitor, seconds: float = 300.0) -> list[int]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if numbers := watch.poll(storage):
            return numbers
        time.sleep(0.05)
    raise AssertionError("nothing was taken over")


def test_a_killed_workers_trial_goes_on_as_the_same_trial(url: str, storage: Storage, study: optuna.Study) -> None:
    with worker_process(url) as child, worker_process(url) as hasty:
        assert (child.do("take"), hasty.do("take")) == (0, 1)
        x = child.do("train")
        watch = HeartbeatMonitor(study)
        assert [watch.poll(storage) for _ in range(3)] == [[], [], []]  # they live
        for process in (child.process, hasty.process):
            os.kill(process.pid, signal.SIGKILL)  # the second one right after its trial was created
            process.join()
        assert watch.poll(storage) == [0, 1]  # its processes are gone: no grace
        assert [trial.state for trial in study.trials] == [TrialState.WAITING] * 2
        assert watch.poll(storage) == []

    worker = Worker(storage, study, "cpu")
    trial = worker.claim(study)
    assert trial is not None and (trial.number, worker.attempt, worker.checkpoint) == (0, 2, "/checkpoints/1")
    assert trial.suggest_float("x", 0, 1) == x
    trial.report(0.3, 3)
    worker.finish(study, trial, TrialState.COMPLETE, 0.3)
    second = worker.claim(study)
    assert second is not None and (second.number, worker.attempt, worker.checkpoint) == (1, 2, None)
    second.suggest_float("x", 0, 1)
    worker.finish(study, second, TrialState.PRUNED)
    worker.close()
    first, other = study.trials
    assert (first.params, first.value, first.intermediate_values) == ({"x": x}, 0.3, {1: 0.1, 2: 0.2, 3: 0.3})
    assert other.state == TrialState.PRUNED


def test_a_frozen_workers_late_words_are_refused(url: str, storage: Storage, study: optuna.Study) -> None:
    with worker_process(url) as child:
        assert child.do("take") == 0
        child.do("train")
        os.kill(child.process.pid, signal.SIGSTOP)
        try:
            assert poll_until(storage, HeartbeatMonitor(study, grace_seconds=0.6)) == [0]
            worker = Worker(storage, study, "cpu")
            trial = worker.claim(study)
            assert trial is not None and trial.number == 0
        finally:
            os.kill(child.process.pid, signal.SIGCONT)
        assert child.do("report late")
        worker.finish(study, trial, TrialState.COMPLETE, 0.3)
        assert child.do("take") == 1  # it lives, and takes the next
        with storage.reading() as session:
            assert not session.get_one(WorkerRow, child.worker_id).ended
        worker.close()
    told = study.trials[0]
    assert (told.value, told.intermediate_values) == (0.3, {1: 0.1, 2: 0.2})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reclaiming, "time", clock)
    return clock


@pytest.fixture
def remote(storage: Storage, study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A worker with a trial in hand, whose row looks like one of another machine, and which beats when told to."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 3600)
    monkeypatch.setattr(lease, "machine", lambda: "another boot pid:[1]")
    worker = Worker(storage, study, "cuda:0")
    assert worker.claim(study) is not None
    yield worker
    worker.close()


def test_a_silent_worker_loses_its_trial_after_three_polls_over_the_grace_period(
    storage: Storage, study: optuna.Study, remote: Worker, clock: Clock
) -> None:
    watch = HeartbeatMonitor(study, grace_seconds=60)
    for seconds in (0, 20, 20):
        clock.now += seconds
        assert watch.poll(storage) == []
    remote._send_heartbeat()
    for seconds in (20, 20, 20):
        clock.now += seconds
        assert watch.poll(storage) == []
    clock.now += 20
    assert watch.poll(storage) == [0]
    assert watch.poll(storage) == [] and study.trials[0].state == TrialState.WAITING


def test_after_an_outage_nobody_is_dead_for_having_been_cut_off(
    url: str, study: optuna.Study, remote: Worker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(url)
    watch = HeartbeatMonitor(study, grace_seconds=60)
    for _ in range(3):
        watch.poll(storage)
        clock.now += 15
    clock.now += 600  # this process was cut off, or asleep: one long gap is a third of the period at most
    assert watch.poll(storage) == []
    for _ in range(2):
        clock.now += 30
        with monkeypatch.context() as outage:
            outage.setattr(storage, "scoped_session", broken_session)
            with pytest.raises(StorageError):
                watch.poll(storage)
        clock.now += 30
        assert watch.poll(storage) == []  # counted anew after each failure
    clock.now += 20
    assert watch.poll(storage) == []
    remote._send_heartbeat()
    assert study.trials[0].state == TrialState.RUNNING


def broken_session() -> Any:
    def fail(*_: object, **__: object) -> None:
        raise optuna.exceptions.StorageInternalError("the server is away")

    return SimpleNamespace(scalars=fail, close=lambda: None)


def test_many_takers_get_it_once(url: str, study: optuna.Study, remote: Worker, clock: Clock) -> None:
    watches = [(open_storage(url), HeartbeatMonitor(study, grace_seconds=60)) for _ in range(8)]
    taken: list[int] = []
    for _ in range(5):
        for storage, watch in watches:
            taken += watch.poll(storage)
        clock.now += 20
    assert taken == [0]
    takers = []
    for _ in range(3):
        storage = open_storage(url)
        same_study = optuna.load_study(study_name="study", storage=storage, sampler=RandomSampler(seed=0))
        takers.append((Worker(storage, same_study, "cpu"), same_study))
    numbers = [trial.number for worker, same_study in takers if (trial := worker.claim(same_study)) is not None]
    assert numbers == [0, 1, 2]
    for worker, _ in takers:
        worker.close()


def test_a_child_that_the_parent_saw_die_is_taken_over_at_once(
    storage: Storage, study: optuna.Study, remote: Worker
) -> None:
    assert reclaim(storage, study, dead=[("another boot pid:[1]", os.getpid() + 1)]) == []
    assert reclaim(storage, study, dead=[(machine(), os.getpid())]) == []  # that number here is another process
    assert reclaim(storage, study, dead=[("another boot pid:[1]", os.getpid())]) == [0]


def test_a_living_process_is_not_dead_for_having_a_dead_ones_number(storage: Storage, study: optuna.Study) -> None:
    worker = Worker(storage, study, "cpu")
    worker.claim(study)
    assert reclaim(storage, study, dead=[(machine(), os.getpid())]) == []
    worker.close()


def test_a_worker_that_is_back_from_the_dead_keeps_its_next_trial(storage: Storage, study: optuna.Study) -> None:
    worker = Worker(storage, study, "cpu")
    with storage.transaction() as session:
        session.get_one(WorkerRow, worker.worker_id).ended = True  # taken for dead while it was frozen
    assert worker.claim(study) is not None
    assert reclaim(storage, study) == []
    worker.close()


def test_three_deaths_without_a_new_checkpoint_fail_the_trial(storage: Storage, study: optuna.Study) -> None:
    def die(checkpoint: str | None = None, killed_by_us: bool = False) -> list[int]:
        worker = Worker(storage, study, "cuda:1")
        trial = worker.claim(study)
        assert trial is not None and trial.number == 0
        if checkpoint:
            worker.record_checkpoint(trial, checkpoint)
        worker._closed.set()
        worker._thread.join()
        storage.set_lease_holder(None)
        with storage.transaction() as session:
            session.get_one(WorkerRow, worker.worker_id).process_start = "1"  # its number is another's by now
        return reclaim(storage, study, dead=[(machine(), os.getpid())], killed_by_us=killed_by_us)

    assert [die(), die(), die("/checkpoints/1"), die()] == [[0], [0], [0], [0]]
    assert study.trials[0].state == TrialState.WAITING
    with storage.reading() as session:
        row = session.get_one(LeaseRow, study.trials[0]._trial_id)
        assert (row.attempt, row.deaths, row.checkpoint) == (4, 2, "/checkpoints/1")
    assert die(killed_by_us=True) == [0]  # Ctrl-C twice: the trial is not to blame
    assert study.trials[0].state == TrialState.WAITING
    assert die() == [0]
    assert study.trials[0].state == TrialState.FAIL
    reason = study.trials[0].user_attrs["failure"]
    assert "3 workers died on it without a new checkpoint" in reason and f"process {os.getpid()}" in reason
    with storage.reading() as session:
        assert session.get(LeaseRow, study.trials[0]._trial_id) is None


def test_a_running_trial_that_nobody_holds_is_returned_after_the_grace_period(
    storage: Storage, study: optuna.Study, clock: Clock
) -> None:
    study.ask().suggest_float("x", 0, 1)  # by other means than a worker, and left
    for _ in range(3):
        assert reclaim(storage, study, grace_seconds=60) == []
        clock.now += 20
    assert reclaim(storage, study, grace_seconds=60) == [0]
    worker = Worker(storage, study, "cpu")
    trial = worker.claim(study)
    assert trial is not None and (trial.number, worker.attempt) == (0, 2)
    worker.close()


def test_a_dead_worker_whose_trial_was_told_by_someone_else(url: str, storage: Storage, study: optuna.Study) -> None:
    worker = Worker(storage, study, "cpu")
    assert worker.claim(study) is not None
    plain = RDBStorage(url)
    optuna.load_study(study_name="study", storage=plain).tell(0, 0.5)
    plain.engine.dispose()
    worker._closed.set()
    worker._thread.join()
    storage.set_lease_holder(None)
    with storage.transaction() as session:
        session.get_one(WorkerRow, worker.worker_id).process_start = "1"
    assert reclaim(storage, study) == []
    assert study.trials[0].value == 0.5
    with storage.reading() as session:
        assert session.get(LeaseRow, study.trials[0]._trial_id) is None


def test_which_process_is_dead_for_sure() -> None:
    assert machine() != "" and own_start() == process_start(os.getpid()) != ""
    assert not is_known_dead(machine(), os.getpid(), own_start())
    assert is_known_dead(machine(), os.getpid(), "1")
    assert not is_known_dead("another machine", os.getpid(), "1")
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    child.start()
    assert child.pid is not None
    start = process_start(child.pid)
    assert start is not None and not is_known_dead(machine(), child.pid, start)
    child.kill()
    deadline = time.monotonic() + 300
    while not is_known_dead(machine(), child.pid, start):  # a zombie, until it is waited for
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.join()
