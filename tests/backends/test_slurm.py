"""A search in Slurm's jobs, one of which is preempted in mid-trial: on submitit's stand-in for Slurm, and on Slurm."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpo.core.errors import DeviceLost, StudyError
from hpo.core.paths import run_folder
from hpo.core.placing import SlurmConfig
from hpo.core.yaml_file import to_yaml
from tests import servers, slurm
from tests.backends.test_contract import MODULE, ROOT, URL, seen, specification, wait_for, wait_for_exits
from tests.faults.search import at_work, check_whole, wait_until, workers_of
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


@pytest.fixture
def preempt_stand_in() -> Callable[[Path], None]:
    def preempt(home: Path) -> None:
        (job,) = jobs_of(home)
        job.send_signal(signal.SIGUSR2)  # Slurm's warning, as `--signal` asks for it
        job.wait(timeout=60)

    return preempt


@pytest.mark.parametrize(
    ("preempted", "settings"),
    [
        pytest.param("preempt_stand_in", {"cluster": "local", "cpus_per_worker": 1}, id="stand-in"),
    ],
)
def test_a_preempted_job_is_queued_again_and_its_trial_goes_on(
    preempted: str,
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    preempt: Callable[[Path], None] = request.getfixturevalue(preempted)
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
        "backend": {"slurm": settings},
    }
    (tmp_path / "faulty.yaml").write_text(to_yaml(study))
    with (tmp_path / "output").open("w") as output:
        search = subprocess.Popen(
            [sys.executable, "-m", "hpo.cli", "run", str(tmp_path / "faulty.yaml")], stdout=output, stderr=output
        )
    try:
        wait_for(lambda: training(home) or search.poll() is not None, 600)
        assert search.poll() is None, (tmp_path / "output").read_text()
        (trial,) = training(home).values()
        preempt(home)
        assert search.wait(timeout=600) == 0, (tmp_path / "output").read_text()
    finally:
        search.kill()
        search.wait()
    wait_until(lambda: not workers_of(home))  # a job's processes end when Slurm says so, which nobody waits for
    found = check_whole(home, trials=TRIALS)
    attempts = {each.number: each.user_attrs["attempt"] for each in found.trials}
    assert attempts == {number: 2 if number == trial else 1 for number in range(TRIALS)}
    assert not jobs_of(home)
    assert "submitit" not in (tmp_path / "output").read_text()  # as it complains where Slurm keeps no accounts
    # No database's URL is left in files: it may hold a password.
    pickled = b"".join(file.read_bytes() for file in run_folder("faulty").rglob("*.pkl"))
    assert pickled and not any(part in pickled for part in (b"hpo.db", b"postgresql", servers.PASSWORD.encode()))


def test_a_job_that_ends_without_a_word_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed with all its processes by an administrator, in a Slurm that keeps no accounts."""
    pytest.importorskip("submitit")
    from hpo.backends.slurm import SlurmBackend

    node = slurm.start(cores=2)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("SLURM_CONF", str(node.configuration))
    settings = SlurmConfig(cpus_per_worker=1)
    backend = SlurmBackend(MODULE, tmp_path / "logs", settings, gpus=0, workers=2, environment={"HPO_STORAGE": URL})
    try:
        backend.start({slot: specification(tmp_path, f"worker{slot}") for slot in (0, 1)})
        seen(tmp_path, 2)
        node.run(["scancel", "--signal=KILL", "--full", "1_0"])
        (ended,) = wait_for_exits(backend, 1)
        assert (ended.slot, ended.code) == (0, DeviceLost.exit_code)
        assert "its job 1_0 ended without a word" in ended.said
        wait_for(lambda: backend.running == 1)
    finally:
        backend.kill()
        node.remove()
