"""The protocol of `hpo/backends/base.py`, tested for every backend with real processes."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpo.backends.base import STOPPED, Backend, WorkerExit
from hpo.backends.local import LocalBackend
from hpo.config.backend import SlurmConfig
from hpo.core.process import machine
from tests import slurm

MODULE = "tests.backends.stub_worker"
ROOT = Path(__file__).parents[2]
LOOPBACK = {"node_ip_address": "127.0.0.1"}
URL = "postgresql+psycopg://me:s3cr3t@host/hpo"


def make_local(logs: Path, request: pytest.FixtureRequest) -> Backend:
    return LocalBackend(MODULE, logs, threads=1, capacity=2)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[str]:
    """One cluster for all tests of this file: it starts in some seconds."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from hpo.backends.ray_internals import use_loopback

    use_loopback(True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, **LOOPBACK})
    yield cluster.address
    cluster.shutdown()


def make_ray(logs: Path, request: pytest.FixtureRequest) -> Backend:
    address = request.getfixturevalue("ray_cluster")
    from hpo.backends.ray import RayBackend, WorkerResources

    return RayBackend(
        MODULE, logs, address, WorkerResources(gpus=0, cpus=1), workers=2, environment={"PYTHONPATH": str(ROOT)}
    )


def make_slurm(logs: Path, request: pytest.FixtureRequest) -> Backend:
    pytest.importorskip("submitit")
    from hpo.backends.slurm import SlurmBackend

    settings = SlurmConfig(cluster="local", cpus_per_worker=1)
    return SlurmBackend(MODULE, logs, settings, gpus=0, workers=2, environment={"HPO_STORAGE": URL})


@pytest.fixture(scope="module")
def slurm_node() -> Iterator[slurm.Slurm]:
    node = slurm.start(cores=2)
    yield node
    node.remove()


def make_real_slurm(logs: Path, request: pytest.FixtureRequest) -> Backend:
    pytest.importorskip("submitit")
    from hpo.backends.slurm import SlurmBackend

    node: slurm.Slurm = request.getfixturevalue("slurm_node")
    environment = {"HPO_STORAGE": URL, "SLURM_CONF": str(node.configuration)}
    request.getfixturevalue("monkeypatch").setenv("SLURM_CONF", str(node.configuration))
    return SlurmBackend(MODULE, logs, SlurmConfig(cpus_per_worker=1), gpus=0, workers=2, environment=environment)


# The slow ones start the processes of a cluster, for some seconds each.
BACKENDS = [
    make_local,
    pytest.param(make_ray, marks=pytest.mark.slow),
    pytest.param(make_slurm, marks=pytest.mark.slow),
    pytest.param(make_real_slurm, marks=pytest.mark.slow),
]


@pytest.fixture(params=BACKENDS, ids=["local", "ray", "slurm-local", "slurm"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    backend: Backend = request.param(tmp_path / "logs", request)
    yield backend
    backend.kill()
    assert not running_workers(tmp_path)


def specification(tmp_path: Path, name: str, **more: Any) -> dict[str, Any]:
    return {
        "storage": URL,
        "folder": str(tmp_path),
        "name": name,
        "title": "größer: 'x'\n",
        "nested": {"a": [1]},
        **more,
    }


def wait_for(condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("the condition did not become true in time")


def started_workers(tmp_path: Path, count: int = 1) -> list[dict[str, Any]]:
    """Wait for `count` workers; return what they wrote when they received their specification."""
    wait_for(lambda: len(list(tmp_path.glob("*.json"))) >= count)
    return [json.loads(file.read_text()) for file in sorted(tmp_path.glob("*.json"))]


def wait_for_exits(backend: Backend, count: int) -> list[WorkerExit]:
    found: list[WorkerExit] = []

    def enough() -> bool:
        found.extend(backend.exits())
        return len(found) >= count

    wait_for(enough)
    return sorted(found, key=lambda ended: ended.slot)


def running_workers(tmp_path: Path) -> list[int]:
    """The running workers of this test. One whose parent has ended detects that after a moment."""
    until = time.monotonic() + 30
    pids = [json.loads(file.read_text())["pid"] for file in tmp_path.glob("*.json")]
    while running := [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]:
        if time.monotonic() > until:
            return running
        time.sleep(0.1)
    return []


def test_workers_receive_their_specifications_and_exits_are_reported(backend: Backend, tmp_path: Path) -> None:
    assert (backend.capacity, backend.running, backend.pending) == (2, 0, 0)
    backend.prestart(0)
    specifications = {slot: specification(tmp_path, f"worker{slot}", code=code) for slot, code in enumerate((0, 3))}
    backend.start(specifications)
    workers = started_workers(tmp_path, 2)
    assert [worker["specification"] for worker in workers] == list(specifications.values())
    assert {worker["threads"] for worker in workers} == {"1"}
    ended = wait_for_exits(backend, 2)
    assert [(each.slot, each.code, each.last_line) for each in ended] == [
        (0, 0, "the last line"),
        (1, 3, "the last line"),
    ]
    assert [(each.machine, each.pid) for each in ended] == [(machine(), worker["pid"]) for worker in workers]
    assert all(each.seconds > 0 and each.log for each in ended)
    assert (backend.running, backend.pending, backend.exits()) == (0, 0, [])


def test_killed_worker_is_reported_and_its_slot_can_be_started_again(backend: Backend, tmp_path: Path) -> None:
    backend.start({slot: specification(tmp_path, f"worker{slot}") for slot in (0, 1)})
    first, other = started_workers(tmp_path, 2)
    wait_for(lambda: backend.running == 2)
    os.kill(first["pid"], signal.SIGKILL)
    (ended,) = wait_for_exits(backend, 1)
    assert (ended.slot, ended.code, ended.pid) == (0, -9, first["pid"])
    assert backend.running == 1
    backend.start({0: specification(tmp_path, "again")})
    again = started_workers(tmp_path, 3)[0]
    assert again["pid"] not in (first["pid"], other["pid"])


def test_stop_lets_workers_save_and_kills_those_that_do_not_stop(backend: Backend, tmp_path: Path) -> None:
    backend.start({slot: specification(tmp_path, f"worker{slot}", stubborn=slot == 1) for slot in (0, 1)})
    started_workers(tmp_path, 2)
    wait_for(lambda: backend.running == 2)
    ended = sorted(backend.stop(grace_seconds=3), key=lambda each: each.slot)
    assert [(each.slot, each.code) for each in ended] == [(0, STOPPED), (1, -9)]
    assert (backend.running, backend.pending, backend.exits()) == (0, 0, [])
    assert not running_workers(tmp_path)


def test_kill_ends_workers_at_once(backend: Backend, tmp_path: Path) -> None:
    backend.start({0: specification(tmp_path, "worker")})
    started_workers(tmp_path)
    wait_for(lambda: backend.running == 1)
    assert [(ended.slot, ended.code) for ended in backend.kill()] == [(0, -9)]
    assert (backend.running, backend.pending, backend.exits()) == (0, 0, [])


def test_prestart_leaves_a_core_for_the_parent(tmp_path: Path) -> None:
    backend = LocalBackend(MODULE, tmp_path, threads=1, capacity=2, max_prestarted=1)
    try:
        for slot in (0, 1):
            backend.prestart(slot)
        assert backend.running == 1
    finally:
        backend.kill()
