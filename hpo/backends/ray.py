"""Workers on a Ray cluster, an existing one or a new one on this machine. Each is an actor with its own resources.

An actor starts the worker as a process on its node, as the local backend does on this machine. If the actor ends
(because the node is drained or the search is over), the pipe to the process is closed: it saves its trial and stops.
"""

import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from hpo.backends.base import Specification, WorkerExit
from hpo.backends.local import LocalBackend
from hpo.backends.ray_internals import find_local_cluster, start_on_loopback, use_loopback
from hpo.core.process import machine
from hpo.errors import ConfigError, DeviceLost, StorageError

POLL_SECONDS = 0.2
CAPACITY_SECONDS = 5.0  # between two checks of the cluster's size
LOCAL = "local"  # Ray's address for a new cluster on this machine
OBJECTS_BYTES = 100 * 2**20  # object store of a new cluster: workers exchange only small objects


@dataclass(frozen=True)
class WorkerResources:
    """The resources of one worker; by default 1 GPU, if the cluster has any, and a share of its cores, at most 4."""

    gpus: float | None = None
    cpus: int | None = None


@dataclass
class _Worker:
    actor: Any
    started: Any  # future of `WorkerActor.start`
    ended: Any  # future of `WorkerActor.wait`
    machine: str = ""
    pid: int = 0  # 0: pending
    since: float = field(default_factory=time.monotonic)


class WorkerActor:
    """The actor, which starts, polls and stops one worker process on its node."""

    def __init__(self, module: str, logs: str, threads: int, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        self._local = LocalBackend(module, Path(logs), threads)
        self._grace: float | None = None
        self._started = threading.Event()

    def start(self, slot: int, specification: Specification) -> tuple[str, int]:
        """Start the worker. Returns its machine and process id."""
        self._local.start({slot: specification})
        pid = self._local.pid(slot)
        self._started.set()
        return machine(), pid

    def wait(self) -> WorkerExit:
        """Wait for the end of the worker. Only this thread polls and stops the process."""
        self._started.wait()
        while True:
            ended = self._local.exits() if self._grace is None else self._local.stop(self._grace)
            if ended:
                return ended[0]
            time.sleep(POLL_SECONDS)

    def stop(self, grace_seconds: float) -> None:
        """Request that the worker stops; `wait` kills it after `grace_seconds`."""
        self._grace = grace_seconds


class RayBackend:
    """Runs workers as actors, which are pending until a node has their resources. `start` replaces one that ended."""

    def __init__(
        self,
        module: str,
        logs: Path,
        address: str | None,
        share: WorkerResources,
        workers: int | None,
        environment: Mapping[str, str],
        one_machine: str | None = None,
    ) -> None:
        """Connect to the cluster at `address`; without `workers`, use the capacity of the cluster.

        If other machines cannot be used, `one_machine` is the reason. Raises `ConfigError` for a missing cluster or
        one without capacity, and `StorageError(one_machine)` for a cluster of several machines.
        """
        self._connected = _connect(address)
        self._module, self._logs, self._environment = module, str(logs), dict(environment)
        self._workers: dict[int, _Worker] = {}
        self._configured = workers
        self._one_machine = one_machine
        self._share = share
        try:
            nodes = self._nodes()
            gpus = share.gpus if share.gpus is not None else float(any(node.get("GPU") for node in nodes))
            self.on_gpus = gpus > 0
            self.threads = share.cpus or _cores_per_worker(nodes, gpus)
            self._share = WorkerResources(gpus, self.threads)
            self._found, self._checked_at = self._count_slots(nodes), time.monotonic()
            if workers is None and self._found == 0:
                raise ConfigError(
                    f"backend: no node of the Ray cluster has the resources of a worker ({gpus:g} GPU, {self.threads} "
                    "CPU). Set gpus_per_worker and cpus_per_worker, or workers: N to wait for such nodes."
                )
        except BaseException:
            self.kill()
            raise

    def _nodes(self) -> list[dict[str, float]]:
        """Return the resources of each node. Raises `StorageError` for a node on a machine that cannot be used."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        others = {node["NodeManagerHostname"] for node in alive} - {socket.gethostname()}
        if self._one_machine and others:
            raise StorageError(
                f"{self._one_machine} The Ray cluster has nodes on other machines: {', '.join(sorted(others))}."
            )
        return [node["Resources"] for node in alive]

    def _count_slots(self, nodes: list[dict[str, float]]) -> int:
        gpus, cpus = self._share.gpus or 0.0, self.threads
        return sum(
            int(min(node.get("CPU", 0) / cpus, (node.get("GPU", 0) + 1e-6) / gpus if gpus else float("inf")))
            for node in nodes
        )

    @property
    def capacity(self) -> int:
        """The configured number of workers, else the largest number that the nodes had resources for."""
        if self._configured is None and self._connected and time.monotonic() - self._checked_at > CAPACITY_SECONDS:
            self._found = max(self._found, self._count_slots(self._nodes()))
            self._checked_at = time.monotonic()
        return self._configured or self._found

    def prestart(self, slot: int) -> None:
        """Do nothing: resources of a node are requested when there is work."""

    def start(self, specifications: Mapping[int, Specification]) -> None:
        """Request an actor for each slot. It starts its worker when a node has the resources."""
        # Three threads: one waits for the worker's end while the others serve calls.
        actors = ray.remote(WorkerActor).options(
            num_gpus=self._share.gpus, num_cpus=self.threads, max_concurrency=3, max_restarts=0
        )
        for slot, specification in specifications.items():
            actor: Any = actors.remote(self._module, self._logs, self.threads, self._environment)
            started = actor.start.remote(slot, dict(specification))
            self._workers[slot] = _Worker(actor, started, actor.wait.remote())

    def exits(self) -> list[WorkerExit]:
        """Return the workers whose process, actor or node ended since the last call."""
        ended = []
        for slot, worker in list(self._workers.items()):
            self._update(worker)
            if _is_ready(worker.ended):
                ended.append(self._exit(slot, worker))
        return ended

    def _update(self, worker: _Worker) -> None:
        """Record the machine and process id of a worker that has started."""
        if worker.pid or not _is_ready(worker.started):
            return
        try:
            worker.machine, worker.pid = ray.get(worker.started)
            worker.since = time.monotonic()
        except RayError:
            worker.pid = -1  # `worker.ended` has the error

    def _exit(self, slot: int, worker: _Worker) -> WorkerExit:
        del self._workers[slot]
        try:
            return replace(ray.get(worker.ended), slot=slot)
        except RayError as error:
            reason = f"its Ray actor ended: {_first_line(error)}"
            seconds = time.monotonic() - worker.since
            return WorkerExit(slot, worker.machine, worker.pid, DeviceLost.exit_code, seconds, reason, self._logs)
        finally:
            ray.kill(worker.actor)

    @property
    def running(self) -> int:
        """Number of running workers."""
        for worker in self._workers.values():
            self._update(worker)
        return sum(worker.pid > 0 for worker in self._workers.values())

    @property
    def pending(self) -> int:
        """Number of workers that wait for resources."""
        return len(self._workers) - self.running

    def stop(self, grace_seconds: float = 10.0) -> list[WorkerExit]:
        """Request that all workers save and stop, kill them after `grace_seconds`; drop the pending ones."""
        self.exits()
        for slot, worker in list(self._workers.items()):
            if worker.pid > 0:
                worker.actor.stop.remote(grace_seconds)
            else:
                ray.kill(self._workers.pop(slot).actor)
        ended: list[WorkerExit] = []
        until = time.monotonic() + grace_seconds + 5.0
        while self._workers and time.monotonic() < until:
            ended += self.exits()
            time.sleep(POLL_SECONDS)
        return ended + self.kill()

    def kill(self) -> list[WorkerExit]:
        """Kill all actors and their workers, and disconnect. A cluster that was started here is shut down."""
        ended = self.exits() if self._workers else []
        for worker in self._workers.values():
            if worker.pid > 0:
                worker.actor.stop.remote(0.0)  # kills at once
        until = time.monotonic() + 3.0
        while self._workers and time.monotonic() < until:
            ended += self.exits()
            time.sleep(POLL_SECONDS)
        for slot, worker in list(self._workers.items()):
            ray.kill(worker.actor)
            ended.append(WorkerExit(slot, worker.machine, worker.pid, -9, 0.0, "its actor was killed", self._logs))
            del self._workers[slot]
        if self._connected:
            ray.shutdown()
            self._connected = False
        return ended


def _connect(address: str | None) -> bool:
    """Connect to the cluster at `address`, else to a running one, else start one here. Raises `ConfigError`.

    Returns whether to disconnect at the end: not if the program of the caller has connected before.
    """
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "namespace": "hpo"}
    named = address or os.environ.get("RAY_ADDRESS")
    known = find_local_cluster() if named in (None, "auto") else named
    if known and known != LOCAL and _is_listening(known):
        use_loopback(known.startswith("127."))
        ray.init(address=known, **options)
    elif named in (None, LOCAL):
        start_on_loopback(object_store_memory=OBJECTS_BYTES, **options)
    else:
        raise ConfigError(
            f"backend: there is no Ray cluster at {named}. address: local starts a new one on this machine."
        )
    return True


def _is_listening(address: str) -> bool:
    """Return whether a server listens at `address`. Ray itself would try for five minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError):
        return False
    return True


def _cores_per_worker(nodes: list[dict[str, float]], gpus: float) -> int:
    """Return the cores of a worker, at most 4: its share of the node by GPUs; without GPUs, all of the node."""
    shares = [node.get("CPU", 0) * (gpus / node["GPU"] if gpus else 1) for node in nodes if not gpus or node.get("GPU")]
    return max(1, min(4, int(min(shares, default=4))))


def _is_ready(future: Any) -> bool:
    ready, _ = ray.wait([future], timeout=0)
    return bool(ready)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
