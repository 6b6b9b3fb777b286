"""Faults of a search in real processes: interrupted, its workers killed, its parent killed. Nothing may be lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from hpo.core.paths import run_folder
from hpo.core.yaml_file import to_yaml
from hpo.study.storage import open_storage
from tests.small_models import save_bert, write_reviews

WORKER = "hpo.workflow.worker"


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough rows and epochs that a trial takes a second or two: there is time to strike."""
    folder = tmp_path_factory.mktemp("material")
    write_reviews(folder / "reviews", train=2000)
    save_bert(folder / "bert", layers=2)
    return folder


@pytest.fixture
def command(material: Path, tmp_path: Path) -> list[str]:
    study = {
        "name": "faulty",
        "data": str(material / "reviews"),
        "models": [str(material / "bert")],
        "search_space": {"learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}, "epochs": 4, "batch_size": 8},
        "budget": {"max_trials": 4},
        "pruner": "none",
        "confirm": {"top": 1, "seeds": 1},
        "workers": 2,
        "devices": "cpu",
    }
    file = tmp_path / "faulty.yaml"
    file.write_text(to_yaml(study))
    return [sys.executable, "-m", "hpo.cli", "run", str(file)]


def start(command: list[str]) -> "subprocess.Popen[str]":
    """Start a search as a person does: Ctrl-C reaches it also where these tests run in the background of a shell."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_until(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def workers_of(home: Path) -> list[psutil.Process]:
    """The worker processes of this test's home that are alive."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "status"]):
        line, environment = process.info["cmdline"] or [], process.info["environ"] or {}
        if WORKER in line and environment.get("HPO_HOME") == str(home) and process.info["status"] != "zombie":
            found.append(process)
    return found


def study_of(home: Path) -> optuna.Study | None:
    if "HPO_STORAGE" not in os.environ and not (home / "hpo.db").exists():
        return None
    try:
        return optuna.load_study(study_name="faulty", storage=open_storage())
    except KeyError:
        return None


def mid_trial(home: Path) -> bool:
    """Whether some trial has reported but is not finished."""
    study = study_of(home)
    running = study.get_trials(states=(TrialState.RUNNING,)) if study else []
    return any(trial.intermediate_values for trial in running)


def check_invariants(home: Path) -> optuna.Study:
    """What faults.md demands of a search that has come to its end."""
    study = study_of(home)
    assert study is not None
    trials = study.get_trials()
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert all(trial.state == TrialState.COMPLETE for trial in trials)
    for trial in trials:
        assert sorted(trial.intermediate_values) == [1, 2, 3, 4]
        assert trial.value == trial.intermediate_values[4]
        assert [point["step"] for point in trial.user_attrs["curve"]] == [1, 2, 3, 4]
        assert {"params", "seed", "plan", "worker"} <= set(trial.user_attrs)
    assert study.user_attrs["result"]["winner"]["trial"] in range(4)
    assert not workers_of(home)
    assert not list((run_folder("faulty") / "checkpoints").glob("*"))
    return study


@pytest.fixture
def home() -> Path:
    return Path(os.environ["HPO_HOME"])


def test_ctrl_c_returns_the_trials_and_the_same_command_goes_on(command: list[str], home: Path) -> None:
    search = start(command)
    wait_until(lambda: mid_trial(home))
    search.send_signal(signal.SIGINT)
    output, _ = search.communicate(timeout=60)
    assert search.returncode == 130, output
    assert "Traceback" not in output
    assert not workers_of(home)
    study = study_of(home)
    assert study is not None
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.FAIL))
    waiting = study.get_trials(states=(TrialState.WAITING,))
    assert any(trial.intermediate_values for trial in waiting)  # begun, and to go on under its own number
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    study = check_invariants(home)
    assert any(trial.user_attrs["attempt"] == 2 for trial in study.trials)


def test_a_killed_worker_is_replaced_and_a_killed_parent_leaves_no_orphan(command: list[str], home: Path) -> None:
    search = start(command)
    wait_until(lambda: mid_trial(home))
    victim = workers_of(home)[0]
    victim.kill()
    wait_until(lambda: len([p for p in workers_of(home) if p.pid != victim.pid]) == 2)
    wait_until(lambda: mid_trial(home))
    search.kill()
    search.communicate(timeout=60)
    wait_until(lambda: not workers_of(home), seconds=20)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    check_invariants(home)


def test_a_stop_from_elsewhere_returns_the_trials_and_the_same_command_goes_on(command: list[str], home: Path) -> None:
    def hpo(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "hpo.cli", *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)

    search = start(command)
    wait_until(lambda: mid_trial(home))
    refused = hpo("delete", "faulty", "--yes")
    assert refused.returncode == 2 and "hpo stop faulty" in refused.stderr
    stopped = hpo("stop", "faulty")
    assert stopped.returncode == 0 and "is stopped" in stopped.stdout, stopped.stdout + stopped.stderr
    output, _ = search.communicate(timeout=60)
    assert search.returncode == 2 and "the same command goes on with it" in output
    assert not workers_of(home)
    study = study_of(home)
    assert study is not None and not study.get_trials(states=(TrialState.RUNNING, TrialState.FAIL))
    assert study.user_attrs.get("result") is None  # not finished: the same command has something to go on with
    begun = [t for t in study.get_trials(states=(TrialState.WAITING,)) if t.intermediate_values]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    check_invariants(home)
    assert not begun or "resumed" in hpo("status", "faulty").stdout


def test_a_preempted_worker_saves_its_trial_and_leaves_within_ten_seconds(command: list[str], home: Path) -> None:
    """As Slurm does: TERM, ten seconds, KILL. The other worker, or the next run, goes on from the checkpoint."""
    search = start(command)
    wait_until(lambda: mid_trial(home))
    for victim in workers_of(home):
        victim.terminate()
        victim.wait(timeout=10)
    study = study_of(home)
    assert study is not None and not study.get_trials(states=(TrialState.RUNNING, TrialState.FAIL))
    assert list((run_folder("faulty") / "checkpoints").glob("*"))
    output, _ = search.communicate(timeout=60)
    assert "Traceback" not in output
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    study = check_invariants(home)
    assert any(trial.user_attrs["attempt"] == 2 for trial in study.trials)
