"""The placement of a study's workers: the backend that it names, and the device and threads of each worker."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hpo.backends.base import Backend
from hpo.backends.local import LocalBackend
from hpo.config.backend import PLUGINS
from hpo.config.study import StudyConfig
from hpo.config.user_code import load_plugin
from hpo.core.paths import default_storage, home, run_folder
from hpo.errors import ConfigError, StorageError
from hpo.training.execution import NOT_FOR_CPUS, Execution, assign_devices, available_devices, choose_execution, cores

WORKER = "hpo.workflow.worker.process"


@dataclass(frozen=True)
class WorkerSlot:
    """The resources of one worker. `device` may be auto or cuda: chosen on the worker's machine."""

    device: str
    threads: int
    final_threads: int  # for the final training, when the other workers are idle
    sharing: int  # workers on the same device; 0: one for each `threads` cores of the machine


@dataclass(frozen=True)
class Placement:
    """The backend of a study and its worker slots; slots that a growing cluster adds are like the last one."""

    backend: Backend
    slots: tuple[WorkerSlot, ...]

    def slot(self, number: int) -> WorkerSlot:
        """Return slot `number`, from 0."""
        return self.slots[min(number, len(self.slots) - 1)]

    def execution_here(self) -> Execution:
        """Return the execution of the checks in this process, which may run on another machine than its workers."""
        slot = self.slots[0]
        device = slot.device if slot.device in available_devices() else available_devices()[0]
        return choose_execution(device, min(slot.threads, cores()))


def create_placement(config: StudyConfig, identity: str = "") -> Placement:
    """Open the backend that `config` names, for the study with this identity.

    Raises `ConfigError` or `StorageError` where its workers cannot run.
    """
    if config.backend.name in _BACKENDS:
        return _BACKENDS[config.backend.name](config, logs_of(config, identity))
    placement: Placement = load_plugin(PLUGINS, config.backend.name, "backend")(config)
    return placement


def _local(config: StudyConfig, logs: Path) -> Placement:
    devices = assign_devices(config.devices, config.workers, config.trials_per_device)
    threads = max(1, cores() // len(devices))
    slots = tuple(WorkerSlot(device, threads, max(cores(), threads), devices.count(device)) for device in devices)
    prestarted = max(1, (os.cpu_count() or 1) - 1)  # one core is left to this process
    return Placement(LocalBackend(WORKER, logs, threads, len(devices), prestarted), slots)


def _ray(config: StudyConfig, logs: Path) -> Placement:
    _require("ray", "ray")
    from hpo.backends.ray import RayBackend, WorkerResources

    settings, sharing = config.backend.ray, config.trials_per_device
    device = _one_device(config)
    gpus = 0.0 if device == "cpu" and settings.gpus_per_worker is None else settings.gpus_per_worker
    if gpus == 0:
        _refuse_sharing(config)
    if gpus is None and sharing is not None:
        gpus = 1 / sharing
    backend = RayBackend(
        WORKER,
        logs,
        settings.address,
        WorkerResources(gpus, settings.cpus_per_worker),
        config.workers,
        environment={"HPO_HOME": str(home())},
        one_machine=_why_one_machine(config),
    )
    slot = WorkerSlot(device, backend.threads, backend.threads, sharing or int(backend.on_gpus))
    return Placement(backend, (slot,) * backend.capacity)


def _slurm(config: StudyConfig, logs: Path) -> Placement:
    _require("submitit", "slurm")
    from hpo.backends.slurm import SlurmBackend

    settings, sharing = config.backend.slurm, config.trials_per_device or 1
    if config.workers is None:
        raise ConfigError("workers: how many jobs to submit, such as workers: 8; Slurm has no default.")
    device = _one_device(config)
    gpus = settings.gpus_per_worker if settings.gpus_per_worker is not None else int(device != "cpu")
    if gpus == 0:
        _refuse_sharing(config)
    alone = _why_one_machine(config)
    if alone and settings.cluster == "slurm":
        raise StorageError(alone)
    storage = {"HPO_STORAGE": config.storage or default_storage()}
    backend = SlurmBackend(WORKER, logs, settings, gpus, config.workers, sharing, environment=storage)
    threads = settings.cpus_per_worker
    return Placement(backend, (WorkerSlot(device, threads, threads, sharing),) * config.workers)


_BACKENDS: dict[str, Callable[[StudyConfig, Path], Placement]] = {
    "local": _local,
    "inline": _local,
    "ray": _ray,
    "slurm": _slurm,
}


def logs_of(config: StudyConfig, identity: str) -> Path:
    """Return the folder of the workers' logs, on the machine of each worker."""
    return run_folder(config.name, identity) / "logs"


def _require(package: str, extra: str) -> None:
    if find_spec(package) is None:
        raise ConfigError(
            f"backend: {extra} needs the package {package}, which is not installed: pip install 'hpo-finetune[{extra}]'"
        )


def _one_device(config: StudyConfig) -> str:
    """Return the device type of all workers: on a cluster, the scheduler assigns the GPU itself."""
    if isinstance(config.devices, str) and config.devices in ("auto", "cpu", "cuda"):
        return config.devices
    raise ConfigError(
        f"devices: {config.devices!r} names devices of one machine; with backend: {config.backend.name} write auto, "
        "cpu or cuda, and the cluster assigns each worker its own."
    )


def _refuse_sharing(config: StudyConfig) -> None:
    if config.trials_per_device is not None:
        raise ConfigError(NOT_FOR_CPUS)


def _why_one_machine(config: StudyConfig) -> str | None:
    """Return the reason for which all workers must run on this machine; None where they need not."""
    url = config.storage or default_storage()
    if not url.startswith("sqlite"):
        return None
    return (
        f"storage: {url} is a file on this machine, which workers on others cannot open. Use PostgreSQL or MySQL "
        "(--storage postgresql+psycopg://USER:PASSWORD@HOST:5432/hpo), or backend: local."
    )
