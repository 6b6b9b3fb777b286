"""A search in real processes that is interrupted, or whose workers or parent are killed. Nothing may be lost."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from hpo.core.paths import named_folder
from hpo.errors import EX_TEMPFAIL
from hpo.storage.records.study import StudyRecord
from tests.faults.search import (
    TIMEOUT,
    check_complete,
    hpo,
    is_mid_trial,
    run_to_completion,
    start,
    study_of,
    training_workers,
    wait_for_end,
    wait_until,
    worker_processes,
    write_command,
)

pytestmark = pytest.mark.slow


def longer(study: dict[str, Any], folder: Path, trials: int, epochs: int = 16) -> list[str]:
    """The study with fewer and longer trials, so that another command can run meanwhile."""
    space = {**study["search_space"], "epochs": epochs}
    return write_command(folder, {**study, "search_space": space, "budget": {"max_trials": trials}})


def test_ctrl_c_once_and_twice_in_each_phase_and_the_same_command_resumes(
    study_file: dict[str, Any], tmp_path: Path, home: Path
) -> None:
    command = longer({**study_file, "workers": 1}, tmp_path, trials=1)
    for phase in ("search", "confirm", "retrain"):
        for presses in (1, 2):
            search = start(command)
            wait_until(lambda phase=phase: training_workers(home, phase))
            for _ in range(presses):
                search.send_signal(signal.SIGINT)
                time.sleep(0.2)
            code, output = wait_for_end(search)
            assert code == 130, output
            assert "Traceback" not in output
            assert not worker_processes(home)
            study = study_of(home)
            assert study is not None and StudyRecord.of(study).result is None
            for each in study._storage.get_all_studies():
                states = {trial.state for trial in study._storage.get_all_trials(each._study_id)}
                assert states <= {TrialState.COMPLETE, TrialState.WAITING}
            if phase == "search" and presses == 1:
                assert study.trials[0].state == TrialState.WAITING and study.trials[0].intermediate_values
    run_to_completion(command)
    study = check_complete(home, trials=1, rungs=16)
    assert study.trials[0].user_attrs["attempt"] == 3


def test_killed_worker_is_replaced_and_killed_parent_leaves_no_orphan(command: list[str], home: Path) -> None:
    search = start(command)
    wait_until(lambda: is_mid_trial(home))
    # The worker builds its batches itself: there is no loader process that could die.
    assert [worker.children() for worker in worker_processes(home)] == [[], []]
    victim = worker_processes(home)[0]
    victim.kill()
    wait_until(lambda: len([p for p in worker_processes(home) if p.pid != victim.pid]) == 2)
    wait_until(lambda: is_mid_trial(home))
    search.kill()
    wait_for_end(search)
    wait_until(lambda: not worker_processes(home))
    run_to_completion(command)
    check_complete(home)


def test_hpo_stop_releases_the_trials_and_the_same_command_resumes(
    study_file: dict[str, Any], tmp_path: Path, home: Path
) -> None:
    command = longer({**study_file, "refit": "none"}, tmp_path, trials=2, epochs=30)
    search = start(command)
    wait_until(lambda: is_mid_trial(home))
    refused = hpo("delete", "faulty", "--yes")
    assert refused.returncode == 2 and "hpo stop faulty" in refused.stderr
    stopped = hpo("stop", "faulty")
    assert stopped.returncode == 0 and "is stopped" in stopped.stdout, stopped.stdout + stopped.stderr
    code, output = wait_for_end(search)
    assert code == 2 and "the same command resumes it" in output
    assert not worker_processes(home)
    study = study_of(home)
    assert study is not None and not study.get_trials(states=(TrialState.RUNNING, TrialState.FAIL))
    waiting = study.get_trials(states=(TrialState.WAITING,))
    assert any(trial.intermediate_values for trial in waiting)  # started, to be resumed under its number
    run_to_completion(command)
    check_complete(home, trials=2, rungs=30)
    assert "resumed" in hpo("status", "faulty").stdout


def test_manual_worker_releases_its_trial_on_sigterm(study_file: dict[str, Any], tmp_path: Path, home: Path) -> None:
    """As under Kubernetes or in the script for Slurm: the exit code means that it may be started again."""
    trials = 3  # enough time to start beside the search's own worker
    search = start(longer({**study_file, "workers": 1}, tmp_path, trials, epochs=6))
    wait_until(lambda: is_mid_trial(home))
    manual = start([sys.executable, "-m", "hpo.cli", "worker", "--study", "faulty", "--device", "cpu"])
    (released,) = wait_until(lambda: [w.trial for w in training_workers(home, "search") if w.pid == manual.pid])
    manual.terminate()
    manual.terminate()  # Slurm sends two
    code, output = wait_for_end(manual)
    assert code == EX_TEMPFAIL, output
    code, output = wait_for_end(search)
    assert code == 0, output
    study = check_complete(home, trials, rungs=6)
    assert study.trials[released].user_attrs["attempt"] == 2


def test_preempted_workers_save_their_trials_and_stop(command: list[str], home: Path) -> None:
    """SIGTERM to both, as Slurm sends before it kills. The next run resumes from the checkpoints."""
    search = start(command)
    wait_until(lambda: is_mid_trial(home))
    for victim in worker_processes(home):
        victim.terminate()
        victim.wait(timeout=TIMEOUT)
    study = study_of(home)
    assert study is not None and not study.get_trials(states=(TrialState.RUNNING, TrialState.FAIL))
    assert list((named_folder("faulty") / "checkpoints").glob("*"))
    _, output = wait_for_end(search)
    assert "Traceback" not in output
    run_to_completion(command)
    study = check_complete(home)
    assert any(trial.user_attrs["attempt"] == 2 for trial in study.trials)
