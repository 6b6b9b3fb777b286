"""A small search in processes of its own, as a person starts it, and what faults.md demands of it at its end."""

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
from hpo.core.paths import default_storage, run_folder
from hpo.errors import StudyError
from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import TrialRecord
from hpo.storage.status import WorkerStatus, read_status
from hpo.storage.storage import Storage, StorageUnavailable, open_storage
from tests.small_models import save_bert, write_reviews

WORKER = "hpo.workflow.worker.process"
RUNGS = 4
PATIENCE = 600.0  # seconds for what takes a few on a quiet machine: none of these tests is about speed

# A person's metric that counts who is right, and does what a test wants before. `strike(name)` is true once.
METRIC = """
import os
import datasets, evaluate, numpy

def strike(name):
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


def write_material(folder: Path) -> Path:
    """Enough rows that a trial of some epochs takes a second or two: there is time to strike."""
    write_reviews(folder / "reviews", train=2000)
    save_bert(folder / "bert", layers=2)
    return folder


def study_on(material: Path, *, trials: int = 4, epochs: int = RUNGS, **settings: Any) -> dict[str, Any]:
    """The study `faulty`, on two workers unless told otherwise."""
    rate = {"low": 1e-3, "high": 1e-2, "log": True}
    return {
        "name": "faulty",
        "data": str(material / "reviews"),
        "models": [str(material / "bert")],
        "search_space": {"learning_rate": rate, "epochs": epochs, "batch_size": 8},
        "budget": {"max_trials": trials},
        "pruner": "none",
        "confirm": {"top": 1, "seeds": 1},
        "workers": 2,
        "devices": "cpu",
        **settings,
    }


def write_metric(folder: Path, fault: str) -> Path:
    """A metric file whose `_compute` carries out the lines of `fault` on each validation."""
    file = folder / "right.py"
    lines = "\n".join(f"            {line}" for line in fault.splitlines())
    file.write_text(METRIC.format(folder=str(folder), fault=lines))
    return file


def slow_metric(folder: Path) -> tuple[str, Path]:
    """A metric whose validations take ten seconds, and no processor, for as long as the file returned with it is there:
    time to strike that no busy machine runs out of."""
    slow = folder / "slow"
    slow.touch()
    fault = f"""import pathlib, time
until = time.monotonic() + 10
while pathlib.Path({str(slow)!r}).exists() and time.monotonic() < until:
    time.sleep(0.1)"""
    return str(write_metric(folder, fault)), slow


def command_for(folder: Path, study: dict[str, Any]) -> list[str]:
    """Write the study to a file, and return the command that runs it."""
    file = folder / "faulty.yaml"
    file.write_text(to_yaml(study))
    return [sys.executable, "-m", "hpo.cli", "run", str(file)]


def hpo(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run one command of hpo to its end."""
    line = [sys.executable, "-m", "hpo.cli", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, check=False)


_started: list["subprocess.Popen[str]"] = []


def start(command: list[str]) -> "subprocess.Popen[str]":
    """Start a search as a person does: Ctrl-C reaches it also where these tests run in the background of a shell."""
    search = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    _started.append(search)
    return search


def end_of(search: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for a search's end; returns its exit code and all that it said."""
    output, _ = search.communicate(timeout=PATIENCE)
    return search.returncode, output


def end_all(home: Path) -> None:
    """Nothing of a test that failed runs on beside the next one."""
    while _started:
        search = _started.pop()
        search.kill()
        said, _ = search.communicate()
        sys.stdout.write(said)  # which pytest shows of a test that failed
    for worker in workers_of(home):
        worker.kill()


def run_to_the_end(command: list[str]) -> str:
    """Run the search until it is finished; returns what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def wait_until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def workers_of(home: Path) -> list[psutil.Process]:
    """The worker processes of this test's home that are alive."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "status"]):
        line, environment = process.info["cmdline"] or [], process.info["environ"] or {}
        if WORKER in line and environment.get("HPO_HOME") == str(home) and process.info["status"] != "zombie":
            found.append(process)
    return found


_opened: dict[str, Storage] = {}


def storage_here() -> Storage:
    """The database of this test, opened once: that takes longer than a look into it."""
    url = default_storage()
    if url not in _opened:
        _opened.clear()
        _opened[url] = open_storage(url)
    return _opened[url]


def study_of(home: Path) -> optuna.Study | None:
    if "HPO_STORAGE" not in os.environ and not (home / "hpo.db").exists():
        return None
    try:
        return optuna.load_study(study_name="faulty", storage=storage_here())
    except (KeyError, StorageUnavailable):
        return None


def mid_trial(home: Path) -> bool:
    """Whether some trial has reported but is not finished."""
    study = study_of(home)
    running = study.get_trials(states=(TrialState.RUNNING,)) if study else []
    return any(trial.intermediate_values for trial in running)


def workers_now(home: Path) -> tuple[WorkerStatus, ...]:
    """The study's workers, as far as there is a study with all that it begins with."""
    if study_of(home) is None:
        return ()
    try:
        return read_status(storage_here(), "faulty").workers
    except StudyError:
        return ()  # made, and its budget not yet set


def at_work(home: Path, phase: str) -> list[WorkerStatus]:
    """The workers that train in this phase, and are past a rung."""
    return [w for w in workers_now(home) if w.phase == phase and w.trial is not None and (w.epoch or 0) > 0]


def check_whole(home: Path, trials: int = 4, rungs: int = RUNGS) -> optuna.Study:
    """What must hold of a search that has come to its end, where no trial is to blame for anything."""
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
    assert not workers_of(home)
    assert not list((run_folder("faulty") / "checkpoints").glob("*"))
    return study


def fill(file: Path) -> None:
    """Leave no byte free on the file system of `file`."""
    with file.open("wb", buffering=0) as writing, suppress(OSError):
        while True:
            writing.write(bytes(4096))
