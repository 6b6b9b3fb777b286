"""Workers on a Ray cluster of two nodes on this machine with two declared GPUs each, one of which dies."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpo.errors import ConfigError, StorageError
from hpo.storage.status import read_status
from tests.backends.test_contract import MODULE, ROOT, specification, started_workers, wait_for
from tests.faults.search import (
    check_complete,
    current_storage,
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

TRIALS = 8


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head with two declared GPUs; nodes like it are added by `add_node`."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)  # on loopback
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


NODE: dict[str, Any] = {"num_cpus": 2, "num_gpus": 2, "node_ip_address": "127.0.0.1"}


def open_backend(tmp_path: Path, address: str, gpus: float | None, alone: str | None = None) -> Any:
    from hpo.backends.ray import RayBackend, WorkerResources

    environment = {"PYTHONPATH": str(ROOT)}
    return RayBackend(MODULE, tmp_path / "logs", address, WorkerResources(gpus, 1), None, environment, alone)


def test_workers_wait_for_resources_and_use_added_nodes(cluster: Any, tmp_path: Path) -> None:
    """Each has a GPU of its own; the third waits for the second node."""
    backend = open_backend(tmp_path, cluster.address, gpus=None)
    try:
        assert (backend.capacity, backend.on_gpus) == (2, True)
        backend.start({slot: specification(tmp_path, f"worker{slot}") for slot in range(3)})
        first = started_workers(tmp_path, 2)
        wait_for(lambda: (backend.exits(), backend.running) == ([], 2))
        assert sorted(worker["gpu"] for worker in first) == ["0", "1"]
        assert backend.pending == 1
        # Of actors that are requested together, Ray may start any one last.
        (last,) = {f"worker{slot}" for slot in range(3)} - {worker["specification"]["name"] for worker in first}
        node = cluster.add_node(**NODE)
        started_workers(tmp_path, 3)
        wait_for(lambda: (backend.exits(), backend.running, backend.capacity) == ([], 3, 4))
        kill_node(node)
        (ended,) = wait_for(backend.exits)
        assert (ended.slot, ended.code, ended.pid > 0) == (int(last[-1]), 75, True)
        assert "Ray actor ended" in ended.last_line
    finally:
        backend.kill()


def test_cluster_without_resources_raises(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no node of the Ray cluster has the resources of a worker \(4 GPU, 1 CPU\)"):
        open_backend(tmp_path, cluster.address, gpus=4)
    with pytest.raises(ConfigError, match=r"there is no Ray cluster at 127\.0\.0\.1:9"):
        open_backend(tmp_path, "127.0.0.1:9", gpus=1)


def test_sqlite_raises_for_several_machines(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    open_backend(tmp_path, cluster.address, gpus=1, alone="storage: a file.").kill()
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    with pytest.raises(StorageError, match=r"storage: a file\. The Ray cluster has nodes on other machines"):
        open_backend(tmp_path, cluster.address, gpus=1, alone="storage: a file.")


def kill_node(node: Any) -> None:
    """Kill a node as if its machine lost power: Ray's processes and all their children."""
    (raylet,) = node.all_processes["raylet"]
    processes = psutil.Process(raylet.process.pid).children(recursive=True)
    for process in [psutil.Process(raylet.process.pid), *processes]:
        process.kill()


def test_no_trial_is_lost_if_a_node_dies(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(**NODE)
    home = Path(os.environ["HPO_HOME"])
    # One worker for each declared GPU. Torch has none, so that the trials train on the CPU.
    backend = {"ray": {"address": cluster.address, "gpus_per_worker": 1, "cpus_per_worker": 1}}
    study = study_config(write_study_inputs(tmp_path), trials=TRIALS, workers=None, backend=backend)
    search = start(write_command(tmp_path, study))
    try:
        wait_until(lambda: len(training_workers(home, "search")) == 4)
        kill_node(node)
        code, output = wait_for_end(search)
    finally:
        kill_all(home)
    assert code == 0, output
    assert output.count("a new one replaces it") == 2, output
    found = check_complete(home, trials=TRIALS)
    assert sum(trial.user_attrs["attempt"] > 1 for trial in found.trials) == 2
    assert len({trial.user_attrs["worker"] for trial in found.trials}) <= 6
    assert read_status(current_storage(), "faulty").workers == ()
