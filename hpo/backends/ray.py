"""Workers on a Ray cluster, one that is there or a new one on this machine: an actor with its share of a node each.

An actor starts the worker as a process of its node, as the local backend does on this machine: when the actor is gone
(the node is drained, the search ended), the process sees its end of the pipe closed, saves its trial and leaves.
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
LOOK_SECONDS = 5.0  # between two looks at how large the cluster is
LOCAL = "local"  # Ray's name for a new cluster on this machine
OBJECTS_BYTES = 100 * 2**20  # of a new cluster's object store: nothing large passes through it


@dataclass(frozen=True)
class WorkerResources:
    """What one worker gets. None: 1 GPU where the cluster has any; the cores that go with it on its node, at most 4."""

    gpus: float | None = None
    cpus: int | None = None


@dataclass
class _Worker:
    actor: Any
    started: Any  # what `WorkerActor.start` will return
    ended: Any  # what `WorkerActor.wait` will return
    machine: str = ""
    pid: int = 0  # 0: it waits for room
    since: float = field(default_factory=time.monotonic)


class WorkerActor:
    """The actor: on its node, it starts one worker process, watches it and stops it."""

    def __init__(self, module: str, logs: str, threads: int, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        self._local = LocalBackend(module, Path(logs), threads)
        self._patience: float | None = None
        self._given = threading.Event()

    def start(self, slot: int, specification: Specification) -> tuple[str, int]:
        self._local.start({slot: specification})
        pid = self._local.pid(slot)
        self._given.set()
        return machine(), pid

    def wait(self) -> WorkerExit:
        """Return when the worker has ended. All that is done to it is done in this one thread."""
        self._given.wait()
        while True:
            ended = self._local.exits() if self._patience is None else self._local.stop(self._patience)
            if ended:
                return ended[0]
            time.sleep(POLL_SECONDS)

    def stop(self, grace_seconds: float) -> None:
        self._patience = grace_seconds


class RayBackend:
    """Actors that wait for room, work on a node, and are replaced by whoever calls `start` again for their slot."""

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
        """`workers` None: as many as the cluster has room for. `one_machine` is why no other one may be used, if so.

        Raises `ConfigError` where there is no such cluster or no room in it, `StorageError(one_machine)` where
        it is of several machines.
        """
        self._connected = _connect(address)
        self._module, self._logs, self._environment = module, str(logs), dict(environment)
        self._workers: dict[int, _Worker] = {}
        self._wanted = workers
        self._one_machine = one_machine
        self._share = share
        try:
            nodes = self._nodes()
            gpus = share.gpus if share.gpus is not None else float(any(node.get("GPU") for node in nodes))
            self.on_gpus = gpus > 0
            self.threads = share.cpus or _cores_of_a_worker(nodes, gpus)
            self._share = WorkerResources(gpus, self.threads)
            self._room, self._looked = self._fits(nodes), time.monotonic()
            if workers is None and self._room == 0:
                raise ConfigError(
                    f"backend: no node of the Ray cluster has room for a worker ({gpus:g} GPU, {self.threads} CPU). "
                    "With workers: N they wait for such nodes; gpus_per_worker and cpus_per_worker say what one needs."
                )
        except BaseException:
            self.kill()
            raise

    def _nodes(self) -> list[dict[str, float]]:
        """What each living node has. Raises `StorageError` where one is on a machine that may not be used."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        others = {node["NodeManagerHostname"] for node in alive} - {socket.gethostname()}
        if self._one_machine and others:
            raise StorageError(
                f"{self._one_machine} The Ray cluster has nodes on other machines: {', '.join(sorted(others))}."
            )
        return [node["Resources"] for node in alive]

    def _fits(self, nodes: list[dict[str, float]]) -> int:
        gpus, cpus = self._share.gpus or 0.0, self.threads
        return sum(
            int(min(node.get("CPU", 0) / cpus, (node.get("GPU", 0) + 1e-6) / gpus if gpus else float("inf")))
            for node in nodes
        )

    @property
    def capacity(self) -> int:
        """The workers asked for, else those that the nodes there are now have room for."""
        if self._wanted is None and self._connected and time.monotonic() - self._looked > LOOK_SECONDS:
            self._room, self._looked = max(self._room, self._fits(self._nodes())), time.monotonic()
        return self._wanted or self._room

    def prestart(self, slot: int) -> None:
        """Nothing: a place on a node is taken when there is work for it."""

    def start(self, specifications: Mapping[int, Specification]) -> None:
        """Ask for an actor for each slot; it starts its worker when a node has room."""
        # Three threads: one waits for the worker's end while others answer.
        actors = ray.remote(WorkerActor).options(
            num_gpus=self._share.gpus, num_cpus=self.threads, max_concurrency=3, max_restarts=0
        )
        for slot, specification in specifications.items():
            actor: Any = actors.remote(self._module, self._logs, self.threads, self._environment)
            started = actor.start.remote(slot, dict(specification))
            self._workers[slot] = _Worker(actor, started, actor.wait.remote())

    def exits(self) -> list[WorkerExit]:
        """The workers whose process, or whose actor or node, ended since the last call."""
        ended = []
        for slot, worker in list(self._workers.items()):
            self._note_start(worker)
            if _is_ready(worker.ended):
                ended.append(self._exit(slot, worker))
        return ended

    def _note_start(self, worker: _Worker) -> None:
        """See whether a worker that waited has found its room."""
        if worker.pid or not _is_ready(worker.started):
            return
        try:
            worker.machine, worker.pid = ray.get(worker.started)
            worker.since = time.monotonic()
        except RayError:
            worker.pid = -1  # `ended` tells

    def _exit(self, slot: int, worker: _Worker) -> WorkerExit:
        del self._workers[slot]
        try:
            return replace(ray.get(worker.ended), slot=slot)
        except RayError as error:
            said = f"its Ray actor is gone: {_first_line(error)}"
            seconds = time.monotonic() - worker.since
            return WorkerExit(slot, worker.machine, worker.pid, DeviceLost.exit_code, seconds, said, self._logs)
        finally:
            ray.kill(worker.actor)

    @property
    def running(self) -> int:
        for worker in self._workers.values():
            self._note_start(worker)
        return sum(worker.pid > 0 for worker in self._workers.values())

    @property
    def pending(self) -> int:
        return len(self._workers) - self.running

    def stop(self, grace_seconds: float = 10.0) -> list[WorkerExit]:
        """Ask all workers to save and leave; let go of those that wait for room."""
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
        """End all actors and their workers, and leave the cluster; a cluster that was made here ends with it."""
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
            ended.append(WorkerExit(slot, worker.machine, worker.pid, -9, 0.0, "its actor was ended", self._logs))
            del self._workers[slot]
        if self._connected:
            ray.shutdown()
            self._connected = False
        return ended


def _connect(address: str | None) -> bool:
    """Join the cluster at `address`, else one there is, else a new one on this machine. Raises `ConfigError`.

    Returns whether there is something to leave: not where the caller's program has joined one itself.
    """
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "namespace": "hpo"}
    named = address or os.environ.get("RAY_ADDRESS")
    known = find_local_cluster() if named in (None, "auto") else named
    if known and known != LOCAL and _answers(known):
        use_loopback(known.startswith("127."))
        ray.init(address=known, **options)
    elif named in (None, LOCAL):
        start_on_loopback(object_store_memory=OBJECTS_BYTES, **options)
    else:
        raise ConfigError(f"backend: there is no Ray cluster at {named}. With address: local, a new one is made here.")
    return True


def _answers(address: str) -> bool:
    """Whether something listens there: Ray itself tries for five minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError):
        return False
    return True


def _cores_of_a_worker(nodes: list[dict[str, float]], gpus: float) -> int:
    """The cores that go with a worker's share of its node's GPUs, at most 4; without GPUs 4, or all of a small node."""
    shares = [node.get("CPU", 0) * (gpus / node["GPU"] if gpus else 1) for node in nodes if not gpus or node.get("GPU")]
    return max(1, min(4, int(min(shares, default=4))))


def _is_ready(future: Any) -> bool:
    ready, _ = ray.wait([future], timeout=0)
    return bool(ready)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
