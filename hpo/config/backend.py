"""Configuration of the backend that runs workers, and of the resources of each worker."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hpo.config.user_code import plugin_names
from hpo.config.validation import Config

BUILT_IN = ("local", "inline", "ray", "slurm")
PLUGINS = "hpo.backends"
"""The entry point group in which installed packages register backends."""


class RayConfig(Config):
    """A Ray cluster, and the resources of a worker there."""

    address: str | None = Field(
        None, description="HOST:PORT, auto, or local (start a cluster); null: RAY_ADDRESS, else auto, else local."
    )
    gpus_per_worker: float | None = Field(
        None, ge=0, description="null: 1 / trials_per_device if the cluster has GPUs; 0 with devices: cpu."
    )
    cpus_per_worker: int | None = Field(
        None, ge=1, description="CPU cores and threads of a worker; null: the cores of a node per GPU, at most 4."
    )


class SlurmConfig(Config):
    """Slurm jobs: each runs one worker, or `trials_per_device` workers on its GPU."""

    gpus_per_worker: int | None = Field(None, ge=0, le=1, description="GPUs of a job; null: 1; 0 with devices: cpu.")
    cpus_per_worker: int = Field(4, ge=1, description="CPU cores and threads of a worker.")
    memory_gb: float | None = Field(None, gt=0, description="Memory of a job; null: the partition's default.")
    hours: float = Field(24, gt=0, description="Time limit of a job, which is requeued when it is reached.")
    partition: str | None = None
    setup: tuple[str, ...] = Field((), description="Shell lines before the worker starts: module load …, source ….")
    options: dict[str, Any] = Field({}, description="Further options of sbatch, such as {account: lab, qos: low}.")
    warning_seconds: int = Field(120, ge=15, description="Seconds before the time limit to save the trial.")
    cluster: Literal["slurm", "local"] = Field("slurm", description="local: run the jobs on this machine, for a test.")


class BackendConfig(Config):
    """Where workers run: `local`, `inline`, `ray`, `slurm`, or `{ray: …}` and `{slurm: …}` with settings.

    Or a backend that an installed package registers in the entry point group `hpo.backends`.
    """

    name: str = "local"
    ray: RayConfig = RayConfig()
    slurm: SlurmConfig = SlurmConfig()
    settings: dict[str, Any] = Field({}, description="Settings of a backend of an installed package.")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"name": given}
        if isinstance(given, Mapping) and "name" not in given and len(given) == 1:
            name, settings = next(iter(given.items()))
            key = name if name in BUILT_IN else "settings"
            return {"name": name} if settings is None else {"name": name, key: settings}
        return given

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name in BUILT_IN or name in plugin_names(PLUGINS):
            return name
        known = [*BUILT_IN, *plugin_names(PLUGINS)]
        raise ValueError(f"must be one of {', '.join(known)}")

    @model_validator(mode="after")
    def _check_settings(self) -> "BackendConfig":
        for other in {"ray", "slurm"} - {self.name}:
            if other in self.model_fields_set:
                raise ValueError(f"has settings of {other}, but the backend is {self.name}: write one of the two")
        return self

    def to_dict(self) -> str | dict[str, Any]:
        """Return the value of `backend` in a study file."""
        key = self.name if self.name in BUILT_IN else "settings"
        settings = self.model_dump(mode="json", exclude_defaults=True).get(key)
        return {self.name: settings} if settings else self.name
