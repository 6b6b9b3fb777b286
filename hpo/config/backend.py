"""What a person writes about where workers run: the backend, and what each worker gets there."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hpo.config.base import Config
from hpo.core.user_code import plugin_names

BUILT_IN = ("local", "inline", "ray", "slurm")
PLUGINS = "hpo.backends"
"""The entry point group in which installed packages register backends."""


class RayConfig(Config):
    """A Ray cluster, and what a worker gets of it."""

    address: str | None = Field(
        None, description="HOST:PORT, auto, or local (a new one here); null: RAY_ADDRESS, else auto, else local."
    )
    gpus_per_worker: float | None = Field(
        None, ge=0, description="null: 1 / trials_per_device where the cluster has GPUs; 0 with devices: cpu."
    )
    cpus_per_worker: int | None = Field(
        None, ge=1, description="Cores, and a worker's threads; null: a GPU's share of its node's, at most 4."
    )


class SlurmConfig(Config):
    """The jobs that Slurm runs: each holds one worker, or `trials_per_device` of them on its GPU."""

    gpus_per_worker: int | None = Field(None, ge=0, le=1, description="GPUs of a job; null: 1; 0 with devices: cpu.")
    cpus_per_worker: int = Field(4, ge=1, description="Cores of a worker, and its threads.")
    memory_gb: float | None = Field(None, gt=0, description="Memory of a job; null: the partition's own.")
    hours: float = Field(24, gt=0, description="Time limit of a job, which is queued again when it is reached.")
    partition: str | None = None
    setup: tuple[str, ...] = Field((), description="Shell lines before the worker starts: module load …, source ….")
    options: dict[str, Any] = Field({}, description="Further options of sbatch, such as {account: lab, qos: low}.")
    warning_seconds: int = Field(120, ge=15, description="Before a job's end: time to save its trial.")
    cluster: Literal["slurm", "local"] = Field("slurm", description="local: jobs on this machine, to try it out.")


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
    def _settings_of_this_one(self) -> "BackendConfig":
        for other in {"ray", "slurm"} - {self.name}:
            if other in self.model_fields_set:
                raise ValueError(f"settings of {other} are given, but workers run on {self.name}: write one of the two")
        return self

    def to_dict(self) -> str | dict[str, Any]:
        """As a person would write it."""
        key = self.name if self.name in BUILT_IN else "settings"
        settings = self.model_dump(mode="json", exclude_defaults=True).get(key)
        return {self.name: settings} if settings else self.name
