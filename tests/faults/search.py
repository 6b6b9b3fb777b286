"""A small search in its own processes, started as a user starts it, and the invariants of a completed one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.trial import TrialState

from hpo.config.yaml import to_yaml
from hpo.core.paths import default_storage, named_folder
from hpo.errors import StudyError
from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import TrialRecord
from hpo.storage.status import WorkerStatus, read_status
from hpo.storage.storage import Storage, StorageUnavailable, open_storage
from tests.small_models import save_bert, write_reviews

WORKER = "hpo.workflow.worker.process"
RUNGS = 4
TIMEOUT = 600.0  # seconds, for steps of a few seconds on an idle machine: these tests do not check speed

# A custom metric: the accuracy, after the fault of a test. `once(name)` returns true once.
METRIC = """
import os
import datasets, evaluate, numpy

def once(name):
    try:
        os.close(os.open(os.path.join({folder!r}, name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True

class Metric(evaluate.Metric):
    def _info(self):
        features = datasets.Features({{"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        if len(predictions) > 4:  # not the trial call
{fault}
        return {{"right": float(numpy.mean(numpy.equal(predictions, references)))}}
"""


def write_study_inputs(folder: Path) -> Path:
    """Write data and a model. The rows make a trial of some epochs take 1 to 2 s, so that a test can interfere."""
    write_reviews(folder / "reviews", train=2000)
    save_bert(folder / "bert", layers=2)
    return folder


def study_config(study_inputs: Path, *, trials: int = 4, epochs: int = RUNGS, **settings: Any) -> dict[str, Any]:
    """The study `faulty`, by default with two workers."""
    rate = {"low": 1e-3, "high": 1e-2, "log": True}
    return {
        "name": "faulty",
        "data": str(study_inputs / "reviews"),
        "models": [str(study_inputs / "bert")],
        "search_space": {"learning_rate": rate, "epochs": epochs, "batch_size": 8},
        "budget": {"max_trials": trials},
        "pruner": "none",
        "confirm": {"top": 1, "seeds": 1},
        "workers": 2,
        "devices": "cpu",
        **settings,
    }


def write_metric(folder: Path, fault: str) -> Path:
    """Write a metric file whose `_compute` runs the lines of `fault` on each validation."""
    file = folder / "right.py"
    lines = "\n".join(f"            {line}" for line in fault.splitlines())
    file.write_text(METRIC.format(folder=str(folder), fault=lines))
    return file


def slow_metric(folder: Path) -> tuple[str, Path]:
    """Write a metric whose validations sleep for 10 s while the file that is returned with it exists.

    On a busy machine too, that leaves the time to interfere.
    """
    slow = folder / "slow"
    slow.touch()
    fault = f"""import pathlib, time
until = time.monotonic() + 10
while pathlib.Path({str(slow)!r}).exists() and time.monotonic() < until:
    time.sleep(0.1)"""
    return str(write_metric(folder, fault)), slow


def write_command(folder: Path, study: dict[str, Any]) -> list[str]:
    """Write the study to a file and return the command that runs it."""
    file = folder / "faulty.yaml"
    file.write_text(to_yaml(study))
    return [sys.executable, "-m", "hpo.cli", "run", str(file)]


def hpo(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of hpo until it ends."""
    line = [sys.executable, "-m", "hpo.cli", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=TIMEOUT, check=False)


_started: list["subprocess.Popen[str]"] = []


def start(command: list[str]) -> "subprocess.Popen[str]":
    """Start a search. Ctrl-C reaches it also if these tests run in the background of a shell."""
    search = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    _started.append(search)
    return search


def wait_for_end(search: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for the end of a search. Returns its exit code and its output."""
    output, _ = search.communicate(timeout=TIMEOUT)
    return search.returncode, output


def kill_all(home: Path) -> None:
    """Kill the processes of a test that failed before the next one starts."""
    while _started:
        search = _started.pop()
        search.kill()
        output, _ = search.communicate()
        sys.stdout.write(output)  # shown by pytest if the test failed
    for worker in worker_processes(home):
        worker.kill()


def run_to_completion(command: list[str]) -> str:
    """Run the search until it is finished. Returns its output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def wait_until(condition: Callable[[], Any], seconds: float = TIMEOUT) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("the condition did not become true in time")


def worker_processes(home: Path) -> list[psutil.Process]:
    """The running worker processes of this test's home."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "status"]):
        line, environment = process.info["cmdline"] or [], process.info["environ"] or {}
        if WORKER in line and environment.get("HPO_HOME") == str(home) and process.info["status"] != "zombie":
            found.append(process)
    return found


_opened: dict[str, Storage] = {}


def current_storage() -> Storage:
    """The database of this test, opened once, because opening takes longer than a query."""
    url = default_storage()
    if url not in _opened:
        _opened.clear()
        _opened[url] = open_storage(url)
    return _opened[url]


def study_of(home: Path) -> optuna.Study | None:
    if "HPO_STORAGE" not in os.environ and not (home / "hpo.db").exists():
        return None
    try:
        return optuna.load_study(study_name="faulty", storage=current_storage())
    except (KeyError, StorageUnavailable):
        return None


def is_mid_trial(home: Path) -> bool:
    """Return whether a trial has reported and is not finished."""
    study = study_of(home)
    running = study.get_trials(states=(TrialState.RUNNING,)) if study else []
    return any(trial.intermediate_values for trial in running)


def worker_statuses(home: Path) -> tuple[WorkerStatus, ...]:
    """The workers of the study; none before the study and its budget are created."""
    if study_of(home) is None:
        return ()
    try:
        return read_status(current_storage(), "faulty").workers
    except StudyError:
        return ()  # created, but without a budget yet


def training_workers(home: Path, phase: str) -> list[WorkerStatus]:
    """The workers that train in `phase` and have passed a rung."""
    return [w for w in worker_statuses(home) if w.phase == phase and w.trial is not None and (w.epoch or 0) > 0]


def check_complete(home: Path, trials: int = 4, rungs: int = RUNGS) -> optuna.Study:
    """Assert the invariants of a completed search in which no trial failed."""
    study = study_of(home)
    assert study is not None
    found = study.get_trials()
    assert [trial.number for trial in found] == list(range(trials))
    assert all(trial.state == TrialState.COMPLETE for trial in found)
    steps = list(range(1, rungs + 1))
    for trial in found:
        assert sorted(trial.intermediate_values) == steps
        assert trial.value == trial.intermediate_values[rungs]
        record = TrialRecord.of(trial)
        assert [point.step for point in record.curve] == steps
        assert {"seed", "worker", "params", "execution", "curve"} <= record.model_fields_set
    result = StudyRecord.of(study).result
    assert result is not None and result.winner.trial in range(trials)
    assert not worker_processes(home)
    assert not list((named_folder("faulty") / "checkpoints").glob("*"))
    return study


def fill(file: Path) -> None:
    """Fill the file system of `file` to the last byte."""
    with file.open("wb", buffering=0) as writing, suppress(OSError):
        while True:
            writing.write(bytes(4096))
