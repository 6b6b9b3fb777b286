"""What every backend must do, held with real processes: the contract in `hpo/backends/backend.py`."""

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

MODULE = "tests.backends.obedient"
ROOT = Path(__file__).parents[2]
LOOPBACK = {"node_ip_address": "127.0.0.1"}
URL = "postgresql+psycopg://me:s3cr3t@host/hpo"


def make_local(logs: Path, request: pytest.FixtureRequest) -> Backend:
    return LocalBackend(MODULE, logs, threads=1, capacity=2)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[str]:
    """One for all tests here: it takes some seconds to start."""
    pytest.importorskip("ray")
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    ray_constants.ENABLE_RAY_CLUSTER = False  # on loopback
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


# The others start a cluster's processes: some seconds each.
BACKENDS = [
    make_local,
    pytest.param(make_ray, marks=pytest.mark.slow),
    pytest.param(make_slurm, marks=pytest.mark.slow),
    pytest.param(make_real_slurm, marks=pytest.mark.slow),
]


@pytest.fixture(params=BACKENDS, ids=["local", "ray", "slurm's stand-in", "slurm"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made: Backend = request.param(tmp_path / "logs", request)
    yield made
    made.kill()
    assert not alive(tmp_path)


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
    raise AssertionError("it did not happen in time")


def seen(tmp_path: Path, count: int = 1) -> list[dict[str, Any]]:
    """What `count` workers wrote when they got their specification."""
    wait_for(lambda: len(list(tmp_path.glob("*.json"))) >= count)
    return [json.loads(file.read_text()) for file in sorted(tmp_path.glob("*.json"))]


def wait_for_exits(backend: Backend, count: int) -> list[WorkerExit]:
    found: list[WorkerExit] = []

    def enough() -> bool:
        found.extend(backend.exits())
        return len(found) >= count

    wait_for(enough)
    return sorted(found, key=lambda ended: ended.slot)


def alive(tmp_path: Path) -> list[int]:
    """The workers of this test that live; one whose parent is gone needs a moment to see it."""
    until = time.monotonic() + 30
    pids = [json.loads(file.read_text())["pid"] for file in tmp_path.glob("*.json")]
    while living := [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]:
        if time.monotonic() > until:
            return living
        time.sleep(0.1)
    return []


def test_workers_get_what_they_are_given_and_their_ends_are_told(backend: Backend, tmp_path: Path) -> None:
    assert (backend.capacity, backend.running, backend.pending) == (2, 0, 0)
    backend.prestart(0)
    given = {slot: specification(tmp_path, f"worker{slot}", code=code) for slot, code in enumerate((0, 3))}
    backend.start(given)
    told = seen(tmp_path, 2)
    assert [worker["given"] for worker in told] == list(given.values())
    assert {worker["threads"] for worker in told} == {"1"}
    ended = wait_for_exits(backend, 2)
    assert [(each.slot, each.code, each.last_line) for each in ended] == [
        (0, 0, "the last line"),
        (1, 3, "the last line"),
    ]
    assert [(each.machine, each.pid) for each in ended] == [(machine(), worker["pid"]) for worker in told]
    assert all(each.seconds > 0 and each.log for each in ended)
    assert (backend.running, backend.pending, backend.exits()) == (0, 0, [])


def test_a_killed_worker_is_told_and_its_slot_can_be_started_again(backend: Backend, tmp_path: Path) -> None:
    backend.start({slot: specification(tmp_path, f"worker{slot}") for slot in (0, 1)})
    first, other = seen(tmp_path, 2)
    wait_for(lambda: backend.running == 2)
    os.kill(first["pid"], signal.SIGKILL)
    (ended,) = wait_for_exits(backend, 1)
    assert (ended.slot, ended.code, ended.pid) == (0, -9, first["pid"])
    assert backend.running == 1
    backend.start({0: specification(tmp_path, "again")})
    again = seen(tmp_path, 3)[0]
    assert again["pid"] not in (first["pid"], other["pid"])


def test_a_stop_lets_workers_save_and_kills_those_that_stay(backend: Backend, tmp_path: Path) -> None:
    backend.start({slot: specification(tmp_path, f"worker{slot}", stubborn=slot == 1) for slot in (0, 1)})
    seen(tmp_path, 2)
    wait_for(lambda: backend.running == 2)
    ended = sorted(backend.stop(grace_seconds=3), key=lambda each: each.slot)
    assert [(each.slot, each.code) for each in ended] == [(0, STOPPED), (1, -9)]
    assert (backend.running, backend.pending, backend.exits()) == (0, 0, [])
    assert not alive(tmp_path)


def test_killed_at_once(backend: Backend, tmp_path: Path) -> None:
    backend.start({0: specification(tmp_path, "worker")})
    seen(tmp_path)
    wait_for(lambda: backend.running == 1)
    assert [(ended.slot, ended.code) for ended in backend.kill()] == [(0, -9)]
    assert (backend.running, backend.pending, backend.exits()) == (0, 0, [])


def test_no_more_processes_begin_early_than_leave_the_parent_a_core(tmp_path: Path) -> None:
    backend = LocalBackend(MODULE, tmp_path, threads=1, capacity=2, early=1)
    try:
        for slot in (0, 1):
            backend.prestart(slot)
        assert backend.running == 1
    finally:
        backend.kill()
