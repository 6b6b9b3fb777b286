"""A search in Slurm jobs, one of which is preempted during a trial: with submitit's local cluster, and with Slurm."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpo.config.backend import SlurmConfig
from hpo.core.paths import named_folder
from hpo.errors import DeviceLost
from tests import servers, slurm
from tests.backends.test_contract import MODULE, ROOT, URL, specification, started_workers, wait_for, wait_for_exits
from tests.faults.search import (
    check_complete,
    kill_all,
    start,
    study_config,
    training_workers,
    wait_for_end,
    wait_until,
    write_command,
    write_study_inputs,
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
def preempt_local() -> Callable[[Path], None]:
    def preempt(home: Path) -> None:
        (job,) = jobs_of(home)
        job.send_signal(signal.SIGUSR2)  # Slurm's warning, as requested by `--signal`
        job.wait(timeout=60)

    return preempt


@pytest.fixture
def preempt_in_slurm(postgresql_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Preempt in Slurm: a job of a partition with priority occupies the node's one core for a moment."""
    monkeypatch.setenv("HPO_STORAGE", postgresql_database)  # SQLite raises: jobs may run on other machines
    node = slurm.start(cores=1)
    monkeypatch.setenv("SLURM_CONF", str(node.configuration))

    yield lambda _: node.preempt()
    node.remove()


@pytest.mark.parametrize(
    ("preempted", "settings"),
    [
        pytest.param("preempt_local", {"cluster": "local", "cpus_per_worker": 1}, id="local"),
        pytest.param("preempt_in_slurm", {"partition": "low", "cpus_per_worker": 1, "hours": 1}, id="slurm"),
    ],
)
def test_preempted_job_is_requeued_and_its_trial_resumed(
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
    study = study_config(write_study_inputs(tmp_path), trials=TRIALS, workers=1, backend={"slurm": settings})
    search = start(write_command(tmp_path, study))
    try:
        (worker,) = wait_until(lambda: training_workers(home, "search"))
        preempt(home)
        code, output = wait_for_end(search)
        assert code == 0, output
        found = check_complete(home, trials=TRIALS)
    finally:
        kill_all(home)
    attempts = {each.number: each.user_attrs["attempt"] for each in found.trials}
    assert attempts == {number: 2 if number == worker.trial else 1 for number in range(TRIALS)}
    assert not jobs_of(home)
    assert "submitit" not in output  # its warnings in a cluster without accounting
    # The URL of the database, which may contain a password, is not written to files.
    pickled = b"".join(file.read_bytes() for file in named_folder("faulty").rglob("*.pkl"))
    assert pickled and not any(part in pickled for part in (b"hpo.db", b"postgresql", servers.PASSWORD.encode()))


@pytest.fixture
def start_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Opens a backend on a new private Slurm."""
    pytest.importorskip("submitit")
    from hpo.backends.slurm import SlurmBackend

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with ExitStack() as cleanup:

        def start_backend(cores: int, settings: str = "") -> tuple[slurm.Slurm, SlurmBackend]:
            node = slurm.start(cores, settings)
            cleanup.callback(node.remove)
            monkeypatch.setenv("SLURM_CONF", str(node.configuration))
            jobs = SlurmConfig(cpus_per_worker=1)
            environment = {"HPO_STORAGE": URL}
            backend = SlurmBackend(MODULE, tmp_path / "logs", jobs, gpus=0, workers=cores, environment=environment)
            cleanup.callback(backend.kill)
            return node, backend

        yield start_backend


def test_job_that_ends_without_a_result_is_reported(tmp_path: Path, start_backend: Callable[..., Any]) -> None:
    """As if an administrator kills the job in a cluster without accounting."""
    node, backend = start_backend(cores=2)
    backend.start({slot: specification(tmp_path, f"worker{slot}") for slot in (0, 1)})
    started_workers(tmp_path, 2)
    node.run(["scancel", "--signal=KILL", "--full", "1_0"])
    (ended,) = wait_for_exits(backend, 1)
    assert (ended.slot, ended.code) == (0, DeviceLost.exit_code)
    assert "its job 1_0 ended without a result" in ended.last_line
    wait_for(lambda: backend.running == 1)


def test_preempted_job_whose_worker_does_not_stop_is_requeued(
    tmp_path: Path, start_backend: Callable[..., Any]
) -> None:
    """Slurm waits longer than the job, which kills its worker. No other job may replace it."""
    node, backend = start_backend(cores=1, settings="KillWait=60")
    backend.start({0: specification(tmp_path, "worker", stubborn=True)})
    (first,) = started_workers(tmp_path)
    node.preempt()
    wait_for(lambda: started_workers(tmp_path)[0]["pid"] != first["pid"])
    assert (backend.exits(), backend.running) == ([], 1)


def test_job_that_was_preempted_as_it_ended_is_cancelled(tmp_path: Path, start_backend: Callable[..., Any]) -> None:
    """Slurm requeues it, though its end was reported."""
    node, backend = start_backend(cores=1)
    backend.start({0: specification(tmp_path, "worker", exit_code=0)})
    started_workers(tmp_path)
    node.preempt()
    (ended,) = wait_for_exits(backend, 1)
    assert ended.code == 0
    assert node.run(["squeue", "--noheader", "--format=%i"]).split() == ["1"]
    backend.kill()
    wait_for(lambda: not node.run(["squeue", "--noheader"]))
