"""Workers on a real Ray cluster of two nodes on this machine, two declared GPUs each; one dies in mid-search."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpo.core.errors import ConfigError, StorageError, StudyError
from hpo.core.yaml_file import to_yaml
from hpo.study.status import read_status
from tests.backends.test_contract import MODULE, ROOT, seen, specification, wait_for
from tests.faults.search import at_work, check_whole, storage_here
from tests.small_models import save_bert, write_reviews

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
    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    yield made
    made.shutdown()


NODE: dict[str, Any] = {"num_cpus": 2, "num_gpus": 2, "node_ip_address": "127.0.0.1"}


def open_backend(tmp_path: Path, address: str, gpus: float | None, alone: str | None = None) -> Any:
    from hpo.backends.ray import RayBackend, Share

    environment = {"PYTHONPATH": str(ROOT)}
    return RayBackend(MODULE, tmp_path / "logs", address, Share(gpus, 1), None, environment, alone)


def test_workers_wait_for_room_and_fill_what_is_added(cluster: Any, tmp_path: Path) -> None:
    """Each has a GPU of its own; the third waits for the second node."""
    backend = open_backend(tmp_path, cluster.address, gpus=None)
    try:
        assert (backend.room, backend.on_gpus) == (2, True)
        backend.start({slot: specification(tmp_path, f"worker{slot}") for slot in range(3)})
        first = seen(tmp_path, 2)
        wait_for(lambda: (backend.exits(), backend.running) == ([], 2))
        assert sorted(worker["gpu"] for worker in first) == ["0", "1"]
        assert backend.waiting == 1
        node = cluster.add_node(**NODE)
        seen(tmp_path, 3)
        wait_for(lambda: (backend.exits(), backend.running, backend.room) == ([], 3, 4))
        end_machine(node)
        (ended,) = wait_for(backend.exits)
        assert (ended.slot, ended.code, ended.pid > 0) == (2, 75, True)
        assert "Ray actor is gone" in ended.said
    finally:
        backend.kill()


def test_what_a_cluster_cannot_give_is_told(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no node of the Ray cluster has room for a worker \(4 GPU, 1 CPU\)"):
        open_backend(tmp_path, cluster.address, gpus=4)
    with pytest.raises(ConfigError, match=r"there is no Ray cluster at 127\.0\.0\.1:9"):
        open_backend(tmp_path, "127.0.0.1:9", gpus=1)


def test_a_file_is_no_database_for_several_machines(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    open_backend(tmp_path, cluster.address, gpus=1, alone="storage: a file.").kill()
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    with pytest.raises(StorageError, match=r"storage: a file\. The Ray cluster has nodes on other machines"):
        open_backend(tmp_path, cluster.address, gpus=1, alone="storage: a file.")


def end_machine(node: Any) -> None:
    """End a node as if its machine lost power: Ray's processes and all that they started, at once."""
    (raylet,) = node.all_processes["raylet"]
    processes = psutil.Process(raylet.process.pid).children(recursive=True)
    for process in [psutil.Process(raylet.process.pid), *processes]:
        process.kill()


def training(home: Path) -> int:
    """How many workers are past a rung of a trial."""
    try:
        return len(at_work(home, "search"))
    except StudyError:
        return 0  # just being made


def test_a_node_dies_in_mid_search_and_nothing_is_lost(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(**NODE)
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
        # torch sees none of the declared GPUs: the trials train on the CPU.
        "devices": "cpu",
        "backend": {"ray": {"address": cluster.address, "gpus_per_worker": 1, "cpus_per_worker": 1}},
    }
    (tmp_path / "faulty.yaml").write_text(to_yaml(study))
    with (tmp_path / "output").open("w") as output:
        search = subprocess.Popen(
            [sys.executable, "-m", "hpo.cli", "run", str(tmp_path / "faulty.yaml")], stdout=output, stderr=output
        )
    try:
        wait_for(lambda: training(home) == 4 or search.poll() is not None, 240)
        assert search.poll() is None, (tmp_path / "output").read_text()
        end_machine(node)
        assert search.wait(timeout=400) == 0, (tmp_path / "output").read_text()
    finally:
        search.kill()
        search.wait()
    told = (tmp_path / "output").read_text()
    assert told.count("another takes its place") == 2, told
    found = check_whole(home, trials=TRIALS)
    assert sum(trial.user_attrs["attempt"] > 1 for trial in found.trials) == 2
    assert len({trial.user_attrs["worker"] for trial in found.trials}) <= 6
    assert read_status(storage_here(), "faulty").workers == ()
