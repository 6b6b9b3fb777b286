"""Dead workers: their trials are resumed by others, once, and living workers keep theirs."""

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

from hpo.core.process import machine
from hpo.errors import StorageError
from hpo.storage import lease
from hpo.storage import reclaim as reclaiming
from hpo.storage.lease import LeaseLost, Worker
from hpo.storage.models import LeaseRow, WorkerRow
from hpo.storage.reclaim import HeartbeatMonitor, reclaim
from hpo.storage.storage import Storage, open_storage


def run_worker(url: str, parent: Connection) -> None:
    """A worker process that executes the orders of its parent."""
    lease.HEARTBEAT_SECONDS = 0.05
    storage = open_storage(url)
    study = optuna.load_study(study_name="study", storage=storage, sampler=RandomSampler(seed=2))
    worker = Worker(storage, study, "cpu")
    parent.send(worker.worker_id)
    while (order := parent.recv()) != "leave":
        if order == "claim":
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
            rejected = True
            with suppress(LeaseLost):  # or kept in the outbox, if the server ended the connection meanwhile
                trial.report(0.9, 3)
            with suppress(LeaseLost):
                worker.finish(study, trial, TrialState.COMPLETE, 0.9)
                rejected = False
            parent.send(rejected)
    worker.close()


@dataclass
class Child:
    process: Any
    pipe: Connection
    worker_id: int

    def do(self, order: str) -> Any:
        self.pipe.send(order)
        assert self.pipe.poll(300), f"no response to {order!r}"
        return self.pipe.recv()


@contextmanager
def worker_process(url: str) -> Iterator[Child]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=run_worker, args=(url, theirs), daemon=True)
    process.start()
    assert ours.poll(300)
    yield Child(process, ours, ours.recv())
    process.kill()
    process.join()


def poll_until(storage: Storage, monitor: HeartbeatMonitor, seconds: float = 300.0) -> list[int]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if numbers := monitor.poll(storage):
            return numbers
        time.sleep(0.05)
    raise AssertionError("no trial was reclaimed")


def test_trial_of_a_killed_worker_is_resumed(url: str, storage: Storage, study: optuna.Study) -> None:
    with worker_process(url) as child, worker_process(url) as hasty:
        assert (child.do("claim"), hasty.do("claim")) == (0, 1)
        x = child.do("train")
        monitor = HeartbeatMonitor(study)
        assert [monitor.poll(storage) for _ in range(3)] == [[], [], []]  # they are alive
        for process in (child.process, hasty.process):
            os.kill(process.pid, signal.SIGKILL)  # the second one right after its trial was created
            process.join()
        assert monitor.poll(storage) == [0, 1]  # the processes are gone: no grace period
        assert [trial.state for trial in study.trials] == [TrialState.WAITING] * 2
        assert monitor.poll(storage) == []

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


def test_late_writes_of_a_suspended_worker_are_rejected(url: str, storage: Storage, study: optuna.Study) -> None:
    with worker_process(url) as child:
        assert child.do("claim") == 0
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
        assert child.do("claim") == 1  # it is alive and claims the next trial
        with storage.reading() as session:
            assert not session.get_one(WorkerRow, child.worker_id).ended
        worker.close()
    stored = study.trials[0]
    assert (stored.value, stored.intermediate_values) == (0.3, {1: 0.1, 2: 0.2})


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
    """A worker with a trial and a row as if on another machine. It sends heartbeats only when the test does."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 3600)
    monkeypatch.setattr(lease, "machine", lambda: "another boot pid:[1]")
    worker = Worker(storage, study, "cuda:0")
    assert worker.claim(study) is not None
    yield worker
    worker.close()


def test_silent_worker_loses_its_trial_after_three_polls_over_the_grace_period(
    storage: Storage, study: optuna.Study, remote: Worker, clock: Clock
) -> None:
    monitor = HeartbeatMonitor(study, grace_seconds=60)
    for seconds in (0, 20, 20):
        clock.now += seconds
        assert monitor.poll(storage) == []
    remote._send_heartbeat()
    for seconds in (20, 20, 20):
        clock.now += seconds
        assert monitor.poll(storage) == []
    clock.now += 20
    assert monitor.poll(storage) == [0]
    assert monitor.poll(storage) == [] and study.trials[0].state == TrialState.WAITING


def test_worker_that_was_cut_off_by_an_outage_is_not_dead(
    url: str, study: optuna.Study, remote: Worker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(url)
    monitor = HeartbeatMonitor(study, grace_seconds=60)
    for _ in range(3):
        monitor.poll(storage)
        clock.now += 15
    clock.now += 600  # this process was suspended: one long gap counts as a third of the period
    assert monitor.poll(storage) == []
    for _ in range(2):
        clock.now += 30
        with monkeypatch.context() as outage:
            outage.setattr(storage, "scoped_session", broken_session)
            with pytest.raises(StorageError):
                monitor.poll(storage)
        clock.now += 30
        assert monitor.poll(storage) == []  # each failure resets the count
    clock.now += 20
    assert monitor.poll(storage) == []
    remote._send_heartbeat()
    assert study.trials[0].state == TrialState.RUNNING


def broken_session() -> Any:
    def fail(*_: object, **__: object) -> None:
        raise optuna.exceptions.StorageInternalError("the server is unavailable")

    return SimpleNamespace(scalars=fail, close=lambda: None)


def test_one_of_many_monitors_reclaims_the_trial(url: str, study: optuna.Study, remote: Worker, clock: Clock) -> None:
    monitors = [(open_storage(url), HeartbeatMonitor(study, grace_seconds=60)) for _ in range(8)]
    reclaimed: list[int] = []
    for _ in range(5):
        for storage, monitor in monitors:
            reclaimed += monitor.poll(storage)
        clock.now += 20
    assert reclaimed == [0]
    claimants = []
    for _ in range(3):
        storage = open_storage(url)
        same_study = optuna.load_study(study_name="study", storage=storage, sampler=RandomSampler(seed=0))
        claimants.append((Worker(storage, same_study, "cpu"), same_study))
    numbers = [trial.number for worker, same_study in claimants if (trial := worker.claim(same_study)) is not None]
    assert numbers == [0, 1, 2]
    for worker, _ in claimants:
        worker.close()


def test_trial_of_a_child_that_died_is_reclaimed_at_once(storage: Storage, study: optuna.Study, remote: Worker) -> None:
    assert reclaim(storage, study, dead=[("another boot pid:[1]", os.getpid() + 1)]) == []
    assert reclaim(storage, study, dead=[(machine(), os.getpid())]) == []  # here this process id is another process
    assert reclaim(storage, study, dead=[("another boot pid:[1]", os.getpid())]) == [0]


def test_living_process_with_the_id_of_a_dead_one_is_alive(storage: Storage, study: optuna.Study) -> None:
    worker = Worker(storage, study, "cpu")
    worker.claim(study)
    assert reclaim(storage, study, dead=[(machine(), os.getpid())]) == []
    worker.close()


def test_worker_that_was_assumed_dead_keeps_its_next_trial(storage: Storage, study: optuna.Study) -> None:
    worker = Worker(storage, study, "cpu")
    with storage.transaction() as session:
        session.get_one(WorkerRow, worker.worker_id).ended = True  # assumed dead while it was suspended
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
            session.get_one(WorkerRow, worker.worker_id).process_start = "1"  # the process id is reused
        return reclaim(storage, study, dead=[(machine(), os.getpid())], killed_by_us=killed_by_us)

    assert [die(), die(), die("/checkpoints/1"), die()] == [[0], [0], [0], [0]]
    assert study.trials[0].state == TrialState.WAITING
    with storage.reading() as session:
        row = session.get_one(LeaseRow, study.trials[0]._trial_id)
        assert (row.attempt, row.deaths, row.checkpoint) == (4, 2, "/checkpoints/1")
    assert die(killed_by_us=True) == [0]  # by Ctrl-C twice: not counted
    assert study.trials[0].state == TrialState.WAITING
    assert die() == [0]
    assert study.trials[0].state == TrialState.FAIL
    reason = study.trials[0].user_attrs["failure"]
    assert "3 workers died on it without a new checkpoint" in reason and f"process {os.getpid()}" in reason
    with storage.reading() as session:
        assert session.get(LeaseRow, study.trials[0]._trial_id) is None


def test_running_trial_without_lease_is_reclaimed_after_the_grace_period(
    storage: Storage, study: optuna.Study, clock: Clock
) -> None:
    study.ask().suggest_float("x", 0, 1)  # without a worker, and abandoned
    for _ in range(3):
        assert reclaim(storage, study, grace_seconds=60) == []
        clock.now += 20
    assert reclaim(storage, study, grace_seconds=60) == [0]
    worker = Worker(storage, study, "cpu")
    trial = worker.claim(study)
    assert trial is not None and (trial.number, worker.attempt) == (0, 2)
    worker.close()


def test_dead_worker_whose_trial_another_process_finished(url: str, storage: Storage, study: optuna.Study) -> None:
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
