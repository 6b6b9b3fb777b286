"""Faults of a search in real processes: interrupted, its workers killed, its parent killed. Nothing may be lost."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from hpo.core.paths import run_folder
from hpo.errors import EX_TEMPFAIL
from hpo.storage.records.study import StudyRecord
from tests.faults.search import (
    PATIENCE,
    at_work,
    check_whole,
    command_for,
    end_of,
    hpo,
    mid_trial,
    run_to_the_end,
    start,
    study_of,
    wait_until,
    workers_of,
)

pytestmark = pytest.mark.slow


def longer(study: dict[str, Any], folder: Path, trials: int, epochs: int = 16) -> list[str]:
    """The study with fewer trials, long enough that a command can be typed in the middle of one."""
    space = {**study["search_space"], "epochs": epochs}
    return command_for(folder, {**study, "search_space": space, "budget": {"max_trials": trials}})


def test_ctrl_c_once_and_twice_in_each_phase_and_the_same_command_goes_on(
    study_file: dict[str, Any], tmp_path: Path, home: Path
) -> None:
    command = longer({**study_file, "workers": 1}, tmp_path, trials=1)
    for phase in ("search", "confirm", "retrain"):
        for presses in (1, 2):
            search = start(command)
            wait_until(lambda phase=phase: at_work(home, phase))
            for _ in range(presses):
                search.send_signal(signal.SIGINT)
                time.sleep(0.2)
            code, output = end_of(search)
            assert code == 130, output
            assert "Traceback" not in output
            assert not workers_of(home)
            study = study_of(home)
            assert study is not None and StudyRecord.of(study).result is None
            for each in study._storage.get_all_studies():
                states = {trial.state for trial in study._storage.get_all_trials(each._study_id)}
                assert states <= {TrialState.COMPLETE, TrialState.WAITING}
            if phase == "search" and presses == 1:
                assert study.trials[0].state == TrialState.WAITING and study.trials[0].intermediate_values
    run_to_the_end(command)
    study = check_whole(home, trials=1, rungs=16)
    assert study.trials[0].user_attrs["attempt"] == 3


def test_a_killed_worker_is_replaced_and_a_killed_parent_leaves_no_orphan(command: list[str], home: Path) -> None:
    search = start(command)
    wait_until(lambda: mid_trial(home))
    # Batches are made in the worker itself: no loader process that could die beside it.
    assert [worker.children() for worker in workers_of(home)] == [[], []]
    victim = workers_of(home)[0]
    victim.kill()
    wait_until(lambda: len([p for p in workers_of(home) if p.pid != victim.pid]) == 2)
    wait_until(lambda: mid_trial(home))
    search.kill()
    end_of(search)
    wait_until(lambda: not workers_of(home))
    run_to_the_end(command)
    check_whole(home)


def test_a_stop_from_elsewhere_returns_the_trials_and_the_same_command_goes_on(
    study_file: dict[str, Any], tmp_path: Path, home: Path
) -> None:
    command = longer({**study_file, "refit": "none"}, tmp_path, trials=2, epochs=30)
    search = start(command)
    wait_until(lambda: mid_trial(home))
    refused = hpo("delete", "faulty", "--yes")
    assert refused.returncode == 2 and "hpo stop faulty" in refused.stderr
    stopped = hpo("stop", "faulty")
    assert stopped.returncode == 0 and "is stopped" in stopped.stdout, stopped.stdout + stopped.stderr
    code, output = end_of(search)
    assert code == 2 and "the same command resumes it" in output
    assert not workers_of(home)
    study = study_of(home)
    assert study is not None and not study.get_trials(states=(TrialState.RUNNING, TrialState.FAIL))
    waiting = study.get_trials(states=(TrialState.WAITING,))
    assert any(trial.intermediate_values for trial in waiting)  # begun, and to go on under its own number
    run_to_the_end(command)
    check_whole(home, trials=2, rungs=30)
    assert "resumed" in hpo("status", "faulty").stdout


def test_a_worker_by_hand_that_is_told_to_leave_gives_its_trial_back(
    study_file: dict[str, Any], tmp_path: Path, home: Path
) -> None:
    """As Kubernetes and the script for Slurm have it: the exit code says that it may be started again."""
    trials = 3  # time enough to begin beside the search's own worker
    search = start(longer({**study_file, "workers": 1}, tmp_path, trials, epochs=6))
    wait_until(lambda: mid_trial(home))
    by_hand = start([sys.executable, "-m", "hpo.cli", "worker", "--study", "faulty", "--device", "cpu"])
    (given_back,) = wait_until(lambda: [w.trial for w in at_work(home, "search") if w.pid == by_hand.pid])
    by_hand.terminate()
    by_hand.terminate()  # Slurm sends two
    code, output = end_of(by_hand)
    assert code == EX_TEMPFAIL, output
    code, output = end_of(search)
    assert code == 0, output
    study = check_whole(home, trials, rungs=6)
    assert study.trials[given_back].user_attrs["attempt"] == 2


def test_a_preempted_worker_saves_its_trial_and_leaves(command: list[str], home: Path) -> None:
    """TERM to both, as Slurm does ten seconds before it kills. The next run goes on from the checkpoints."""
    search = start(command)
    wait_until(lambda: mid_trial(home))
    for victim in workers_of(home):
        victim.terminate()
        victim.wait(timeout=PATIENCE)
    study = study_of(home)
    assert study is not None and not study.get_trials(states=(TrialState.RUNNING, TrialState.FAIL))
    assert list((run_folder("faulty") / "checkpoints").glob("*"))
    _, output = end_of(search)
    assert "Traceback" not in output
    run_to_the_end(command)
    study = check_whole(home)
    assert any(trial.user_attrs["attempt"] == 2 for trial in study.trials)
