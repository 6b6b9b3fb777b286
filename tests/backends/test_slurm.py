"""A search in Slurm's jobs, on submitit's own stand-in for Slurm: a job is preempted in mid-trial, and queued again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hpo.core.errors import StudyError
from hpo.core.paths import run_folder
from hpo.core.yaml_file import to_yaml
from tests.backends.test_contract import ROOT, wait_for
from tests.faults.search import at_work, check_whole
from tests.small_models import save_bert, write_reviews

pytestmark = pytest.mark.slow

TRIALS = 3


def jobs_of(home: Path) -> list[psutil.Process]:
    """The processes in which submitit runs the jobs of this test."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        line, environment = process.info["cmdline"] or [], process.info["environ"] or {}
        if "submitit.core._submit" in line and environment.get("HPO_HOME") == str(home):
            found.append(process)
    return found


def training(home: Path) -> dict[int, int]:
    """The trial of each worker process that is past a rung."""
    try:
        return {worker.pid: worker.trial for worker in at_work(home, "search") if worker.trial is not None}
    except StudyError:
        return {}  # just being made


def test_a_preempted_job_is_queued_again_and_its_trial_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    home = Path(os.environ["HPO_HOME"])
    write_reviews(tmp_path / "reviews", train=2000)
    save_bert(tmp_path / "bert", layers=2)
    study = {
        "name": "faulty",
        "data": str(tmp_path / "reviews"),
        "models": [str(tmp_path / "bert")],
        "search_space": {"learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}, "epochs": 4, "batch_size": 8},
        "budget": {"max_trials": TRIALS},
        "pruner": "none",
        "confirm": {"top": 1, "seeds": 1},
        "devices": "cpu",
        "workers": 1,
        "backend": {"slurm": {"cluster": "local", "cpus_per_worker": 1}},
    }
    (tmp_path / "faulty.yaml").write_text(to_yaml(study))
    with (tmp_path / "output").open("w") as output:
        search = subprocess.Popen(
            [sys.executable, "-m", "hpo.cli", "run", str(tmp_path / "faulty.yaml")], stdout=output, stderr=output
        )
    try:
        wait_for(lambda: training(home) or search.poll() is not None, 240)
        assert search.poll() is None, (tmp_path / "output").read_text()
        (trial,) = training(home).values()
        (job,) = jobs_of(home)
        job.send_signal(signal.SIGUSR2)  # Slurm's warning, as `--signal` asks for it
        job.wait(timeout=60)
        assert search.wait(timeout=400) == 0, (tmp_path / "output").read_text()
    finally:
        search.kill()
        search.wait()
    found = check_whole(home, trials=TRIALS)
    attempts = {each.number: each.user_attrs["attempt"] for each in found.trials}
    assert attempts == {number: 2 if number == trial else 1 for number in range(TRIALS)}
    assert not jobs_of(home)
    for file in run_folder("faulty").rglob("*.pkl"):
        assert b"hpo.db" not in file.read_bytes()  # no database's URL is left in files: it may hold a password
