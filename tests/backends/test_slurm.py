"""A search in Slurm's jobs, one of which is preempted in mid-trial: on submitit's stand-in for Slurm, and on Slurm."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpo.config.backend import SlurmConfig
from hpo.core.paths import run_folder
from hpo.errors import DeviceLost
from tests import servers, slurm
from tests.backends.test_contract import MODULE, ROOT, URL, seen, specification, wait_for, wait_for_exits
from tests.faults.search import (
    at_work,
    check_whole,
    command_for,
    end_all,
    end_of,
    start,
    study_on,
    wait_until,
    write_material,
)

pytestmark = pytest.mark.slow

TRIALS = 2


def jobs_of(home: Path) -> list[psutil.Process]:
    """The processes in which submitit runs the jobs of this test."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        line, environment = process.info["cmdline"] or [], process.info["environ"] or {}
        if "submitit.core._submit" in line and environment.get("HPO_HOME") == str(home):
            found.append(process)
    return found


@pytest.fixture
def preempt_stand_in() -> Callable[[Path], None]:
    def preempt(home: Path) -> None:
        (job,) = jobs_of(home)
        job.send_signal(signal.SIGUSR2)  # Slurm's warning, as `--signal` asks for it
        job.wait(timeout=60)

    return preempt


@pytest.fixture
def preempt_in_slurm(postgresql_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Slurm itself: a job of a partition that goes first takes the node's one core for a moment."""
    monkeypatch.setenv("HPO_STORAGE", postgresql_database)  # a file is refused: jobs may run on other machines
    node = slurm.start(cores=1)
    monkeypatch.setenv("SLURM_CONF", str(node.configuration))

    yield lambda _: node.preempt()
    node.remove()


@pytest.mark.parametrize(
    ("preempted", "settings"),
    [
        pytest.param("preempt_stand_in", {"cluster": "local", "cpus_per_worker": 1}, id="stand-in"),
        pytest.param("preempt_in_slurm", {"partition": "low", "cpus_per_worker": 1, "hours": 1}, id="slurm"),
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
    study = study_on(write_material(tmp_path), trials=TRIALS, workers=1, backend={"slurm": settings})
    search = start(command_for(tmp_path, study))
    try:
        (worker,) = wait_until(lambda: at_work(home, "search"))
        preempt(home)
        code, output = end_of(search)
        assert code == 0, output
        found = check_whole(home, trials=TRIALS)
    finally:
        end_all(home)
    attempts = {each.number: each.user_attrs["attempt"] for each in found.trials}
    assert attempts == {number: 2 if number == worker.trial else 1 for number in range(TRIALS)}
    assert not jobs_of(home)
    assert "submitit" not in output  # as it complains where Slurm keeps no accounts
    # No database's URL is left in files: it may hold a password.
    pickled = b"".join(file.read_bytes() for file in run_folder("faulty").rglob("*.pkl"))
    assert pickled and not any(part in pickled for part in (b"hpo.db", b"postgresql", servers.PASSWORD.encode()))


@pytest.fixture
def start_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Opens a backend on a Slurm of its own."""
    pytest.importorskip("submitit")
    from hpo.backends.slurm import SlurmBackend

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with ExitStack() as ending:

        def start_backend(cores: int, settings: str = "") -> tuple[slurm.Slurm, SlurmBackend]:
            node = slurm.start(cores, settings)
            ending.callback(node.remove)
            monkeypatch.setenv("SLURM_CONF", str(node.configuration))
            jobs = SlurmConfig(cpus_per_worker=1)
            environment = {"HPO_STORAGE": URL}
            backend = SlurmBackend(MODULE, tmp_path / "logs", jobs, gpus=0, workers=cores, environment=environment)
            ending.callback(backend.kill)
            return node, backend

        yield start_backend


def test_a_job_that_ends_without_a_word_is_told(tmp_path: Path, start_backend: Callable[..., Any]) -> None:
    """Killed with all its processes by an administrator, in a Slurm that keeps no accounts."""
    node, backend = start_backend(cores=2)
    backend.start({slot: specification(tmp_path, f"worker{slot}") for slot in (0, 1)})
    seen(tmp_path, 2)
    node.run(["scancel", "--signal=KILL", "--full", "1_0"])
    (ended,) = wait_for_exits(backend, 1)
    assert (ended.slot, ended.code) == (0, DeviceLost.exit_code)
    assert "its job 1_0 ended without a word" in ended.last_line
    wait_for(lambda: backend.running == 1)


def test_a_preempted_job_whose_worker_does_not_leave_is_queued_again(
    tmp_path: Path, start_backend: Callable[..., Any]
) -> None:
    """Slurm waits for longer than the job does, which kills its worker: no other job may be started in its place."""
    node, backend = start_backend(cores=1, settings="KillWait=60")
    backend.start({0: specification(tmp_path, "worker", stubborn=True)})
    (first,) = seen(tmp_path)
    node.preempt()
    wait_for(lambda: seen(tmp_path)[0]["pid"] != first["pid"])
    assert (backend.exits(), backend.running) == ([], 1)


def test_a_job_that_was_preempted_as_it_ended_is_cancelled(tmp_path: Path, start_backend: Callable[..., Any]) -> None:
    """Slurm queues it again, and nobody waits for it."""
    node, backend = start_backend(cores=1)
    backend.start({0: specification(tmp_path, "worker", leaves=0)})
    seen(tmp_path)
    node.preempt()
    (ended,) = wait_for_exits(backend, 1)
    assert ended.code == 0
    assert node.run(["squeue", "--noheader", "--format=%i"]).split() == ["1"]
    backend.kill()
    wait_for(lambda: not node.run(["squeue", "--noheader"]))
