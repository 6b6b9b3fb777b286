"""What a person writes: the definition of a study, in YAML or Python.

`load_config` reads it, applies `--set` overrides, resolves paths against the file's folder and tells every
mistake that can be seen without opening data or models.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from hpo.config.backend import BackendConfig
from hpo.config.base import Config
from hpo.config.constraints import Constraints
from hpo.config.first_trials import check_first_trial
from hpo.config.model_ref import ModelRef, label_models
from hpo.config.search_space import SearchSpace, yaml_name
from hpo.config.space_parser import parse_search_space
from hpo.config.validation import check_study_name
from hpo.core.direction import Direction
from hpo.errors import ConfigError, did_you_mean


class DataConfig(Config):
    """Where the labelled data is, which columns matter, and how it is split."""

    path: str = Field(
        min_length=1,
        description="A csv, tsv, jsonl, parquet, Arrow or CoNLL file, a folder, or a hub dataset.",
    )
    name: str | None = Field(None, description="The configuration of a hub dataset.")
    revision: str | None = Field(None, description="The revision of a hub dataset.")
    text: str | tuple[str, ...] | None = Field(
        None, description="Column of the text, or of several as the task reads them; null: recognised."
    )
    image: str | None = Field(None, description="Column of the images' paths or bytes; null: recognised.")
    audio: str | None = Field(None, description="Column of the sound files' paths or bytes; null: recognised.")
    label: str | tuple[str, ...] | None = Field(
        None, description="Column of the label, or one 0/1 column a class; null: recognised."
    )
    group: str | None = Field(None, description="Column whose values stay together: no group is in two splits.")
    label_delimiter: str | None = Field(
        None, min_length=1, description="What stands between several labels in one text; null: recognised."
    )
    train: str | None = Field(None, description="File or split to train on; null: recognised by name.")
    validation: str | None = Field(None, description="File or split to select on; null: recognised, else made.")
    test: str | None = Field(None, description="File or split touched once at the end; null: recognised, else made.")
    validation_size: float = Field(0.15, gt=0, lt=1, description="Share of train, where validation is made.")
    test_size: float = Field(0.15, gt=0, lt=1, description="Share of train, where test is made.")
    folds: int | None = Field(
        None, ge=2, description="Parts of train that are validated on in turn (k-fold), each trial by their mean."
    )
    drop_empty: bool = Field(False, description="Drop rows whose text is empty instead of refusing them.")
    encoding: str = Field("utf-8", description="Text encoding of csv, tsv and jsonl files.")

    @field_validator("text", "label", mode="before")
    @classmethod
    def _one_or_more(cls, given: Any) -> Any:
        if isinstance(given, list | tuple) and len(given) == 0:
            raise ValueError("write one column, or several as [first, second, …]")
        return given[0] if isinstance(given, list | tuple) and len(given) == 1 else given

    @model_validator(mode="after")
    def _one_validation(self) -> "DataConfig":
        if self.folds is not None and self.validation is not None:
            raise ValueError("write validation or folds, not both: folds of the training rows take turns at it")
        return self


class Generation(Config):
    """How tasks that write texts (summaries, translations) write and judge them."""

    rows: int = Field(200, ge=1, description="Validation rows that texts are written for at a rung, greedily.")
    num_beams: int = Field(4, ge=1, description="Beams with which the final model writes, on test and afterwards.")
    max_target_length: int | None = Field(
        None, ge=4, description="Tokens of a text that is learnt to be written; null: as many as are read."
    )


class Fidelity(Config):
    """When a trial reports and may be pruned: its rungs."""

    rungs_per_epoch: int = Field(1, ge=1, le=20, description="Evaluations in each epoch.")


class Budget(Config):
    """What the search may spend, shared by all workers."""

    max_trials: int = Field(32, ge=1, description="Trials in all: complete, pruned and failed.")
    max_hours: float | None = Field(None, gt=0, description="Wall hours of running, over all runs of the study.")


class Confirm(Config):
    """How the winner is confirmed: the best `top` configurations, again on `seeds` fresh seeds each.

    With `budget.max_hours`, as many of these runs as fit into a fifth of it, and at least one.
    """

    top: int = Field(3, ge=1)
    seeds: int = Field(2, ge=1)


class StudyConfig(Config):
    """A whole study: what to search, on what, with which budget."""

    name: str = Field(description="The study's name in the database.")
    task: str = Field("text-classification", description="The task: a name, or a Python file with a Task.")
    data: DataConfig
    models: tuple[ModelRef, ...] = Field(min_length=1, description="The candidates.")
    search_space: SearchSpace
    first_trials: tuple[dict[str, Any], ...] = Field((), description="Configurations to try first.")
    portfolio: tuple[dict[str, Any], ...] = Field(
        (), description="Good defaults, tried where `first_trials` names none; empty: those of the search space's file."
    )
    warm_start: tuple[str, ...] = Field((), description="Studies to start from: their trials, or what they tell.")
    metric: str = Field(
        "", description="What is optimised: a name, or a Python file with a Metric; empty: the task's own."
    )
    direction: Direction | None = Field(None, description="null: the metric's own.")
    max_length: int | None = Field(None, ge=4, description="Tokens per example; null: from the data and models.")
    max_seconds: float | None = Field(None, gt=0, description="Seconds of sound per example; null: 30.")
    sampler: dict[str, Any] = Field({"name": "freeze_thaw"}, description="hpo's default, or an Optuna sampler by name.")
    pruner: dict[str, Any] = Field(
        {"name": "successive_halving"}, description="hpo's default, or an Optuna pruner by name."
    )
    fidelity: Fidelity = Fidelity()
    generation: Generation = Generation()
    budget: Budget = Budget()
    rank: bool = Field(True, description="Rank the models on the data before the first trial, where the task allows.")
    constraints: Constraints = Constraints()
    confirm: Confirm = Confirm()
    refit: Literal["train+validation", "none"] = Field(
        "train+validation",
        description="What the final model is trained on; none keeps the validated checkpoint.",
    )
    keep_adapter: bool = Field(False, description="Save the final LoRA adapter by itself too, in `adapter/`.")
    devices: str | tuple[str, ...] = Field("auto", description="auto, cpu, cuda, or a list such as [cuda:0, cuda:1].")
    workers: int | None = Field(None, ge=1, description="Worker processes; null: one per GPU, or cores // 4.")
    trials_per_device: int | None = Field(
        None, ge=1, le=16, description="Small trials that train on one GPU at once, each with its share of the memory."
    )
    callbacks: tuple[str, ...] = Field(
        (), description="Python files with a Callback each; file.py:ClassName where one defines several."
    )
    backend: BackendConfig = Field(BackendConfig(), description="Where workers run: local, inline, ray or slurm.")
    checkpoints: str | None = Field(
        None, description="A folder or URL (s3://…) that all machines reach; null: beside the study's results."
    )
    storage: str | None = Field(None, description="Database URL; null: HPO_STORAGE, else studies/hpo.db.")
    seed: int = Field(0, ge=0, lt=2**31)

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_study_name(name)

    @field_validator("checkpoints")
    @classmethod
    def _no_password(cls, place: str | None) -> str | None:
        if place is not None and urlsplit(place).password is not None:
            raise ValueError("holds a password, which would be recorded; give it as the file system's library reads it")
        return place

    @field_validator("warm_start", mode="before")
    @classmethod
    def _one_or_more(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given

    @field_validator("sampler", "pruner", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if not isinstance(given, str | Mapping):
            raise ValueError("write a name, or {name: …} with its arguments")
        return {"name": given} if isinstance(given, str) else given

    @field_validator("models", mode="before")
    @classmethod
    def _models(cls, given: Any) -> Any:
        refs = given if isinstance(given, list | tuple) else [given]
        return label_models([{"name": ref} if isinstance(ref, str) else ref for ref in refs])

    @field_validator("search_space", mode="before")
    @classmethod
    def _space(cls, given: Any) -> Any:
        return parse_search_space(given) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _conditions_name_candidates(self) -> "StudyConfig":
        for name, parameter in self.search_space.parameters.items():
            for model in (parameter.when or {}).get("model", ()):
                self._check_label(model, f"search_space.{yaml_name(name)}.when.model")
        return self

    @model_validator(mode="after")
    def _first_trials_fit(self) -> "StudyConfig":
        for number, trial in enumerate(self.first_trials):
            where = f"first_trials[{number}]"
            if "model" in trial:
                self._check_label(trial["model"], f"{where}.model")
            check_first_trial(trial, where, self.models[0].label)
        for number, trial in enumerate(self.portfolio):
            check_first_trial(trial, f"search_space.first_trials[{number}]", self.models[0].label)
        return self

    @model_validator(mode="after")
    def _one_validated_model(self) -> "StudyConfig":
        if self.data.folds is not None and self.refit == "none":
            raise ConfigError(
                "refit: none keeps the model that was validated, and with data.folds each part of the rows has one of "
                "its own. Write refit: train+validation."
            )
        return self

    def _check_label(self, label: Any, where: str) -> None:
        known = [model.label for model in self.models]
        if label not in known:
            hint = did_you_mean(str(label), known)
            raise ConfigError(f"{where}: '{label}' is not among the models: {', '.join(known)}.{hint}")

    def model_ref(self, label: str) -> ModelRef:
        """The candidate called `label`."""
        return next(model for model in self.models if model.label == label)

    @property
    def labels(self) -> list[str]:
        """The candidates' labels: the choices of the study's `model` parameter."""
        return [model.label for model in self.models if not model.dropped]

    def drop_models(self, dropped: Mapping[str, str]) -> "StudyConfig":
        """The same study, some of its models no candidates any more: their labels, each with the reason."""
        models = tuple(m.model_copy(update={"dropped": dropped.get(m.label, m.dropped)}) for m in self.models)
        return self.model_copy(update={"models": models})

    def identity(self) -> dict[str, Any]:
        """What makes two studies the same search: all that may not change when a study is continued.

        A local model counts by its label: its folder may be moved.
        """
        plain = self.to_dict()
        kept = (
            *("task", "search_space", "metric", "direction", "max_length", "max_seconds", "fidelity", "generation"),
            *("constraints", "seed"),
        )
        refs = [model.model_dump(exclude_defaults=True, exclude={"dropped"}) for model in self.models]
        models = [{**ref, "name": ref["label"]} if Path(ref["name"]).is_absolute() else ref for ref in refs]
        return {"models": models, **{key: plain[key] for key in kept}}

    def redacted(self) -> dict[str, Any]:
        """`to_dict` without the database's URL: it may hold a password, and this is kept and shown."""
        return {key: value for key, value in self.to_dict().items() if key != "storage"}

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values that `load_config` reads back, for YAML and the database."""
        plain = self.model_dump(mode="json", exclude={"search_space", "models", "backend"})
        plain["models"] = [model.model_dump(mode="json", exclude_defaults=True) for model in self.models]
        plain["search_space"] = self.search_space.to_dict()
        plain["backend"] = self.backend.to_dict()
        order = {name: place for place, name in enumerate(StudyConfig.model_fields)}
        return dict(sorted(plain.items(), key=lambda item: order[item[0]]))
