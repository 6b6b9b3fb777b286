"""The clock of a study's hours: no time is counted twice, and none is lost when the process that counts is killed."""

import optuna
import pytest

from hpo.storage import budget
from hpo.storage.budget import STALE_SECONDS, StudyClock, seconds_run

pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


class Time:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    moved = Time()
    monkeypatch.setattr(budget, "time", moved)
    return moved


def advance(time: Time, seconds: float, *clocks: StudyClock) -> None:
    for _ in range(round(seconds / 3)):
        time.now += 3.0
        for each in clocks:
            each.tick()


def test_parent_counts_and_its_workers_do_not(study: optuna.Study, time: Time) -> None:
    parent, worker = StudyClock(study, keeps=True), StudyClock(study)
    advance(time, 60, parent, worker)
    assert seconds_run(study) == pytest.approx(60)


def test_two_parents_count_once(study: optuna.Study, time: Time) -> None:
    first = StudyClock(study, keeps=True)
    advance(time, 30, first)
    second = StudyClock(study, keeps=True)
    advance(time, 60, first, second)
    assert seconds_run(study) == pytest.approx(90, abs=4)


def test_one_worker_counts_after_the_parent_was_killed(study: optuna.Study, time: Time) -> None:
    parent, workers = StudyClock(study, keeps=True), [StudyClock(study) for _ in range(3)]
    advance(time, 30, parent, *workers)
    advance(time, 120, *workers)
    assert seconds_run(study) == pytest.approx(150, abs=STALE_SECONDS / 2)
    advance(time, 60, *workers[1:])  # the worker that counted is killed as well
    assert seconds_run(study) == pytest.approx(210, abs=STALE_SECONDS)


def test_time_without_any_process_does_not_count(study: optuna.Study, time: Time) -> None:
    advance(time, 30, StudyClock(study, keeps=True))
    time.now += 3600
    advance(time, 30, StudyClock(study, keeps=True))
    assert seconds_run(study) == pytest.approx(60)
