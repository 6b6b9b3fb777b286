"""What a person writes: the definition of a study, in YAML or Python.

`load_config` reads it, applies `--set` overrides, resolves paths against the file's folder and tells every
mistake that can be seen without opening data or models.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hpo.core.errors import ConfigError, did_you_mean
from hpo.core.paths import check_study_name
from hpo.core.search_space import SearchSpace, parse_search_space
from hpo.core.trial import TrialParams
from hpo.core.yaml_file import parse_yaml, read_yaml


class Config(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Config):
    """Where the labelled data is, which columns matter, and how it is split."""

    path: str = Field(description="A csv, tsv, jsonl or parquet file, a folder of them, or a hub dataset.")
    name: str | None = Field(None, description="The configuration of a hub dataset.")
    revision: str | None = Field(None, description="The revision of a hub dataset.")
    text: str | tuple[str, str] | None = Field(None, description="Column(s) of the text(s); null: recognised.")
    label: str | None = Field(None, description="Column of the label; null: recognised.")
    train: str | None = Field(None, description="File or split to train on; null: recognised by name.")
    validation: str | None = Field(None, description="File or split to select on; null: recognised, else made.")
    test: str | None = Field(None, description="File or split touched once at the end; null: recognised, else made.")
    validation_size: float = Field(0.15, gt=0, lt=1, description="Share of train, where validation is made.")
    test_size: float = Field(0.15, gt=0, lt=1, description="Share of train, where test is made.")
    drop_empty: bool = Field(False, description="Drop rows whose text is empty instead of refusing them.")
    encoding: str = Field("utf-8", description="Text encoding of csv, tsv and jsonl files.")


class ModelRef(Config):
    """A candidate: a hub id or a local folder."""

    name: str = Field(min_length=1, description="Hub id or local folder.")
    revision: str | None = None
    subfolder: str = ""
    tokenizer: str | None = Field(None, description="Hub id or folder of the tokenizer; null: the model's own.")
    trust_remote_code: bool = False
    allow_pickle: bool = Field(False, description="Accept pickled weights (.bin): they can run code when loaded.")
    label: str = Field("", description="How the model is called in the study; made from the name.")

    @property
    def is_local(self) -> bool:
        return Path(self.name).is_dir()


class Fidelity(Config):
    """When a trial reports and may be pruned: rungs, the same for every trial."""

    rungs_per_epoch: int = Field(1, ge=1, le=20, description="Evaluations in each epoch.")


class Budget(Config):
    """What the search may spend, shared by all workers."""

    max_trials: int = Field(32, ge=1, description="Trials in all: complete, pruned and failed.")
    max_hours: float | None = Field(None, gt=0, description="Wall hours of running, over all runs of the study.")


class Confirm(Config):
    """How the winner is confirmed: the best `top` configurations, again on `seeds` fresh seeds each."""

    top: int = Field(3, ge=1)
    seeds: int = Field(2, ge=1)


class StudyConfig(Config):
    """A whole study: what to search, on what, with which budget."""

    name: str = Field(description="The study's name in the database.")
    task: str = Field("text-classification", description="The task.")
    data: DataConfig
    models: tuple[ModelRef, ...] = Field(min_length=1, description="The candidates.")
    search_space: SearchSpace
    first_trials: tuple[dict[str, Any], ...] = Field((), description="Configurations to try first.")
    metric: str = Field("accuracy", description="What is optimised: a name, or a Python file with a Metric.")
    direction: Literal["maximize", "minimize"] | None = Field(None, description="null: the metric's own.")
    max_length: int | None = Field(None, ge=4, description="Tokens per example; null: from the data and models.")
    sampler: dict[str, Any] = Field({"name": "tpe"}, description="hpo's default, or an Optuna sampler by name.")
    pruner: dict[str, Any] = Field(
        {"name": "successive_halving"}, description="hpo's default, or an Optuna pruner by name."
    )
    fidelity: Fidelity = Fidelity()
    budget: Budget = Budget()
    confirm: Confirm = Confirm()
    refit: Literal["train+validation", "none"] = Field(
        "train+validation",
        description="What the final model is trained on; none keeps the validated checkpoint.",
    )
    devices: str | tuple[str, ...] = Field("auto", description="auto, cpu, cuda, or a list such as [cuda:0, cuda:1].")
    workers: int | None = Field(None, ge=1, description="Worker processes; null: one per GPU, or cores // 4.")
    backend: Literal["local", "inline"] = Field("local", description="Where workers run.")
    storage: str | None = Field(None, description="Database URL; null: HPO_STORAGE, else studies/hpo.db.")
    seed: int = Field(0, ge=0, lt=2**31)

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_study_name(name)

    @field_validator("sampler", "pruner", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @field_validator("models", mode="before")
    @classmethod
    def _models(cls, given: Any) -> Any:
        refs = given if isinstance(given, list | tuple) else [given]
        return label_models([{"name": ref} if isinstance(ref, str) else ref for ref in refs])

    @field_validator("search_space", mode="before")
    @classmethod
    def _space(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and set(given) != {"parameters"}:
            return parse_search_space(given)
        return given

    @model_validator(mode="after")
    def _first_trials_fit(self) -> "StudyConfig":
        labels = self.labels
        for number, trial in enumerate(self.first_trials):
            where = f"first_trials[{number}]"
            unknown = [key for key in trial if key not in TrialParams.model_fields]
            if unknown:
                hint = did_you_mean(unknown[0], TrialParams.model_fields)
                raise ConfigError(f"{where}.{unknown[0]}: no such parameter.{hint}")
            if "model" in trial and trial["model"] not in labels:
                hint = did_you_mean(str(trial["model"]), labels)
                raise ConfigError(f"{where}.model: '{trial['model']}' is not among {', '.join(labels)}.{hint}")
            try:
                TrialParams.model_validate({"model": labels[0], **trial})
            except ValidationError as error:
                raise ConfigError(f"{where}{explain(error, '.')}") from None
        return self

    def model_ref(self, label: str) -> ModelRef:
        """The candidate called `label`."""
        return next(model for model in self.models if model.label == label)

    @property
    def labels(self) -> list[str]:
        """The candidates' labels: the choices of the study's `model` parameter."""
        return [model.label for model in self.models]

    def identity(self) -> dict[str, Any]:
        """What makes two studies the same search: all that may not change when a study is continued."""
        plain = self.to_plain()
        kept = ("task", "models", "search_space", "metric", "direction", "max_length", "fidelity", "seed")
        return {key: plain[key] for key in kept}

    def recorded(self) -> dict[str, Any]:
        """`to_plain` without the database's URL: it may hold a password, and this is kept and shown."""
        return {key: value for key, value in self.to_plain().items() if key != "storage"}

    def to_plain(self) -> dict[str, Any]:
        """The configuration as plain values that `load_config` reads back, for YAML and the database."""
        plain = self.model_dump(mode="json", exclude={"search_space", "models"})
        plain["models"] = [
            {k: v for k, v in m.model_dump(mode="json", exclude_defaults=True).items() if k != "label"}
            for m in self.models
        ]
        plain["search_space"] = self.search_space.to_plain()
        order = {name: place for place, name in enumerate(StudyConfig.model_fields)}
        return dict(sorted(plain.items(), key=lambda item: order[item[0]]))


def label_models(refs: Sequence[Any]) -> list[Any]:
    """Give each model a short label, unique in the study: a hub id as it is, a folder by its last name."""
    plain = [dict(r) if isinstance(r, Mapping) else r.model_dump() if isinstance(r, ModelRef) else r for r in refs]
    taken: set[str] = set()
    for ref in plain:
        if not isinstance(ref, dict) or not isinstance(ref.get("name"), str):
            continue
        path = Path(ref["name"])
        parts = path.parts if path.is_absolute() else (ref["name"],)
        label = next(
            ("/".join(parts[-n:]) for n in range(1, len(parts) + 1) if "/".join(parts[-n:]) not in taken),
            "",
        )
        if ref.get("subfolder"):
            label += f"/{ref['subfolder']}"
        if ref.get("revision"):
            label += f"@{ref['revision']}"
        if not label or label in taken:
            raise ConfigError(f"models: '{ref['name']}' is listed twice.")
        taken.add(label)
        ref["label"] = label
    return plain


def load_config(
    source: str | os.PathLike[str] | Mapping[str, Any] | StudyConfig, overrides: Sequence[str] = ()
) -> StudyConfig:
    """Read a study from a YAML file or a mapping.

    `overrides` are `key=value` strings (`budget.max_trials=8`), values read as YAML. Relative paths of data,
    models and a metric file are taken from the file's folder, or from the current one for a mapping. The study's
    name is the file's unless it is given. Raises `ConfigError` naming the key.
    """
    if isinstance(source, StudyConfig):
        written, folder, where = source.to_plain(), Path.cwd(), "study"
    elif isinstance(source, Mapping):
        written, folder, where = dict(source), Path.cwd(), "study"
    else:
        path = Path(source)
        written, folder, where = read_yaml(path), path.absolute().parent, str(path)
        written.setdefault("name", path.stem)
    for override in overrides:
        written = _override(written, override)
    try:
        return StudyConfig.model_validate(_resolve_paths(written, folder))
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error)}") from None


def explain(error: ValidationError, prefix: str = "") -> str:
    """The first mistake that pydantic found, as a sentence with its key and the nearest known key."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1])
        hint = did_you_mean(str(first["loc"][-1]), known)
        return f"{prefix}{place}: no such key.{hint} Allowed: {', '.join(known)}."
    if first["type"] == "missing":
        return f"{prefix}{place}: this key is needed."
    given = first["input"]
    shown = f" (given: {given!r})" if isinstance(given, Scalars) else ""
    return f"{prefix}{place}: {first['msg'].removeprefix('Value error, ')}{shown}."


Scalars = (str, int, float, bool, type(None))


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at a place in a study file."""
    model: type[BaseModel] = StudyConfig
    for part in location:
        if isinstance(part, int):
            continue
        nested: dict[int | str, type[BaseModel]] = {
            "data": DataConfig,
            "models": ModelRef,
            "fidelity": Fidelity,
            "budget": Budget,
            "confirm": Confirm,
        }
        model = nested.get(part, model)
    return [name for name in model.model_fields if not (model is ModelRef and name == "label")]


def _override(written: dict[str, Any], override: str) -> dict[str, Any]:
    key, sign, value = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set {override}: write key=value, for example --set budget.max_trials=8.")
    parsed = parse_yaml(f"value: {value}", f"--set {override}")["value"]
    result = dict(written)
    place = result
    *parents, last = key.split(".")
    for parent in parents:
        inner = place.get(parent) or {}
        if not isinstance(inner, Mapping):
            raise ConfigError(f"--set {override}: '{parent}' holds a value, not keys.")
        place[parent] = dict(inner)
        place = place[parent]
    place[last] = parsed
    return result


def _resolve_paths(written: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make what exists on this disk absolute; what does not exist may be a hub id and stays as it is."""
    resolved = dict(written)
    data = resolved.get("data")
    if isinstance(data, str):
        data = {"path": data}
    if isinstance(data, Mapping) and isinstance(data.get("path"), str):
        resolved["data"] = {**data, "path": _local(data["path"], folder)}
    models = resolved.get("models")
    if isinstance(models, str | Mapping):
        models = [models]
    if isinstance(models, list | tuple):
        resolved["models"] = [_local_model(ref, folder) for ref in models]
    if isinstance(resolved.get("metric"), str) and resolved["metric"].endswith(".py"):
        resolved["metric"] = str((folder / Path(resolved["metric"]).expanduser()).resolve())
    space = resolved.get("search_space", "text-encoders")
    if isinstance(space, str):
        resolved["search_space"] = _space_file(space, folder)
    return resolved


def _local_model(ref: Any, folder: Path) -> Any:
    if isinstance(ref, str):
        return _local(ref, folder)
    if not isinstance(ref, Mapping):
        return ref
    paths = {key: _local(ref[key], folder) for key in ("name", "tokenizer") if isinstance(ref.get(key), str)}
    return {**ref, **paths}


def _local(name: str, folder: Path) -> str:
    path = folder / Path(name).expanduser()
    spelled_as_path = name.startswith((".", "/", "~"))
    return str(path.resolve()) if spelled_as_path or path.exists() else name


def _space_file(name: str, folder: Path) -> dict[str, Any]:
    """Read a search space named by a file, or one of the ready-made ones by its name."""
    shipped = ready_made("search_spaces")
    for path in (folder / name, shipped / f"{name}.yaml"):
        if path.is_file():
            return read_yaml(path)
    ready = sorted(path.stem for path in shipped.glob("*.yaml"))
    raise ConfigError(
        f"search_space: '{name}' is neither a file nor ready-made.{did_you_mean(name, ready)} "
        f"Ready-made: {', '.join(ready)}."
    )


def ready_made(folder: str) -> Path:
    """A folder that comes with hpo (search_spaces, examples/models): of the checkout, else of the installation."""
    checkout = Path(__file__).parents[2] / folder
    return checkout if checkout.is_dir() else Path(sys.prefix) / "share" / "hpo" / folder
