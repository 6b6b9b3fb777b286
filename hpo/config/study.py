"""The schema of a study's configuration. It reports all mistakes that are visible without data and models."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hpo.config.backend import BackendConfig
from hpo.config.constraints import Constraints
from hpo.config.first_trials import check_first_trial
from hpo.config.model_ref import ModelRef, label_models
from hpo.config.search_space import SearchSpace, yaml_name
from hpo.config.space_parser import parse_search_space
from hpo.config.validation import Config, check_study_name
from hpo.core.direction import Direction
from hpo.errors import ConfigError, did_you_mean
from hpo.errors.redact import has_secret

# The keys whose values may contain a URL or a shell line, and are recorded.
_MAY_HOLD_SECRETS: dict[str, Any] = {
    "data": {"path", "train", "validation", "test"},
    **dict.fromkeys(("models", "task", "metric", "callbacks", "checkpoints", "backend", "sampler", "pruner"), True),
}


class DataConfig(Config):
    """The labeled data: its location, its columns, and how it is split."""

    path: str = Field(
        min_length=1, description="A file (csv, tsv, json, parquet, Excel, CoNLL, …), a folder, or a hub dataset."
    )
    name: str | None = Field(None, description="The configuration of a hub dataset.")
    revision: str | None = Field(None, description="The revision of a hub dataset.")
    text: str | tuple[str, ...] | None = Field(
        None, description="Column of the text, or columns of several texts in the task's order; null: detected."
    )
    image: str | None = Field(None, description="Column of the images' paths or bytes; null: detected.")
    audio: str | None = Field(None, description="Column of the audio clips' paths or bytes; null: detected.")
    label: str | tuple[str, ...] | None = Field(
        None, description="Column of the label, or one 0/1 column per class; null: detected."
    )
    group: str | None = Field(None, description="Column of groups: all rows of a group are in the same split.")
    label_delimiter: str | None = Field(
        None, min_length=1, description="Separator of several labels in one string; null: detected."
    )
    train: str | None = Field(None, description="File or split to train on; null: detected by its name.")
    validation: str | None = Field(None, description="File or split to select on; null: detected, or split from train.")
    test: str | None = Field(
        None, description="File or split that is evaluated once, at the end; null: detected, or split from train."
    )
    validation_size: float = Field(0.15, gt=0, lt=1, description="Share of train for a validation split.")
    test_size: float = Field(0.15, gt=0, lt=1, description="Share of train for a test split.")
    folds: int | None = Field(
        None, ge=2, description="k-fold validation on train: a trial's value is the mean of its folds."
    )
    drop_empty: bool = Field(False, description="Drop rows whose text or label is empty (a class of - or -1 too).")
    encoding: str = Field("utf-8", description="Text encoding of csv, tsv, jsonl and other text files.")
    header: bool | None = Field(None, description="Whether a table's first line names the columns; null: detected.")

    @field_validator("text", "label", mode="before")
    @classmethod
    def _one_or_more(cls, given: Any) -> Any:
        if isinstance(given, list | tuple) and len(given) == 0:
            raise ValueError("write one column, or several as [first, second, …]")
        return given[0] if isinstance(given, list | tuple) and len(given) == 1 else given

    @model_validator(mode="after")
    def _check_folds(self) -> "DataConfig":
        if self.folds is not None and self.validation is not None:
            raise ValueError(
                "write validation or folds, not both: with folds, the training rows are used for validation"
            )
        return self


class Generation(Config):
    """Text generation in tasks such as summarization and translation."""

    rows: int = Field(200, ge=1, description="Validation rows to generate for at a rung, greedily.")
    num_beams: int = Field(4, ge=1, description="Beams of the final model, on test and in predictions.")
    max_target_length: int | None = Field(None, ge=4, description="Maximum tokens of a target; null: as of an input.")


class Fidelity(Config):
    """The rungs, at which a trial reports and may be pruned."""

    rungs_per_epoch: int = Field(1, ge=1, le=20, description="Evaluations in each epoch.")


class Budget(Config):
    """The budget of the search, shared by all workers."""

    max_trials: int = Field(32, ge=1, description="Number of trials, including pruned and failed ones.")
    max_hours: float | None = Field(None, gt=0, description="Wall-clock hours, summed over all runs of the study.")


class Confirm(Config):
    """Confirmation of the winner: the best `top` configurations are trained again with `seeds` new seeds each.

    With `budget.max_hours`, only as many of these runs as fit into a fifth of it, but at least one.
    """

    top: int = Field(3, ge=1, description="Number of configurations.")
    seeds: int = Field(2, ge=1, description="Runs of each, with different seeds.")


class StudyConfig(Config):
    """The configuration of a study."""

    name: str = Field(description="Name of the study in the database.")
    task: str = Field("text-classification", description="The task: a name, or a Python file with a Task.")
    data: DataConfig
    models: tuple[ModelRef, ...] = Field(min_length=1, description="The candidate models.")
    search_space: SearchSpace
    first_trials: tuple[dict[str, Any], ...] = Field((), description="Configurations to try first.")
    portfolio: tuple[dict[str, Any], ...] = Field(
        (), description="Good defaults, tried if there are no `first_trials`; empty: those of the search space's file."
    )
    warm_start: tuple[str, ...] = Field(
        (), description="Earlier studies: their trials are copied, or inform the sampler."
    )
    metric: str = Field(
        "", description="Metric to optimize: a name, or a Python file with a Metric; empty: the task's default."
    )
    direction: Direction | None = Field(None, description="null: that of the metric.")
    max_length: int | None = Field(
        None, ge=4, description="Maximum tokens per input; null: from the data and the models."
    )
    max_seconds: float | None = Field(None, gt=0, description="Maximum seconds of audio per example; null: 30.")
    sampler: dict[str, Any] = Field({"name": "freeze_thaw"}, description="hpo's sampler, or an Optuna sampler by name.")
    pruner: dict[str, Any] = Field(
        {"name": "successive_halving"}, description="hpo's pruner, or an Optuna pruner by name."
    )
    fidelity: Fidelity = Fidelity()
    generation: Generation = Generation()
    budget: Budget = Budget()
    rank: bool = Field(True, description="Rank the models on the data before the first trial, if the task supports it.")
    constraints: Constraints = Constraints()
    confirm: Confirm = Confirm()
    refit: Literal["train+validation", "none"] = Field(
        "train+validation", description="Data of the final model; none: keep the checkpoint that was validated."
    )
    keep_adapter: bool = Field(False, description="Also save the final LoRA adapter separately, in `adapter/`.")
    devices: str | tuple[str, ...] = Field("auto", description="auto, cpu, cuda, or a list such as [cuda:0, cuda:1].")
    workers: int | None = Field(None, ge=1, description="Worker processes; null: one per GPU, or cores // 4.")
    trials_per_device: int | None = Field(
        None, ge=1, le=16, description="Trials that train concurrently on one GPU, each with its share of the memory."
    )
    callbacks: tuple[str, ...] = Field(
        (), description="Python files with a Callback each; file.py:ClassName where one defines several."
    )
    backend: BackendConfig = Field(BackendConfig(), description="Where workers run: local, inline, ray or slurm.")
    checkpoints: str | None = Field(
        None, description="A folder or URL (s3://…) that all machines can access; null: in the study's results."
    )
    storage: str | None = Field(None, description="Database URL; null: HPO_STORAGE, else studies/hpo.db.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the sampler, the splits and all training runs.")

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_study_name(name)

    @field_validator("devices")
    @classmethod
    def _some_device(cls, devices: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not devices:
            raise ValueError("must name at least one device: auto, cpu, cuda, or a list such as [cuda:0, cuda:1]")
        return devices

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
    def _check_secrets(self) -> "StudyConfig":
        """Reject secrets in what is recorded: everything but the database's URL."""
        for key, text in _strings(self.model_dump(mode="json", include=_MAY_HOLD_SECRETS)):
            if has_secret(text):
                raise ConfigError(
                    f"{key}: must not contain a password, key or token: it would be recorded (it is not shown here). "
                    "Use the file system's own credentials, or an environment variable."
                )
        return self

    @model_validator(mode="after")
    def _check_conditions(self) -> "StudyConfig":
        for name, parameter in self.search_space.parameters.items():
            for model in (parameter.when or {}).get("model", ()):
                self._check_label(model, f"search_space.{yaml_name(name)}.when.model")
        return self

    @model_validator(mode="after")
    def _check_first_trials(self) -> "StudyConfig":
        for number, trial in enumerate(self.first_trials):
            where = f"first_trials[{number}]"
            if "model" in trial:
                self._check_label(trial["model"], f"{where}.model")
            check_first_trial(trial, where, self.models[0].label)
        for number, trial in enumerate(self.portfolio):
            check_first_trial(trial, f"search_space.first_trials[{number}]", self.models[0].label)
        return self

    @model_validator(mode="after")
    def _check_refit(self) -> "StudyConfig":
        if self.data.folds is not None and self.refit == "none":
            raise ConfigError(
                "refit: none keeps the model that was validated, and data.folds validates one for each fold. "
                "Write refit: train+validation."
            )
        return self

    def _check_label(self, label: Any, where: str) -> None:
        known = [model.label for model in self.models]
        if label not in known:
            hint = did_you_mean(str(label), known)
            raise ConfigError(f"{where}: '{label}' is not among the models: {', '.join(known)}.{hint}")

    def model_ref(self, label: str) -> ModelRef:
        """Return the candidate with this label."""
        return next(model for model in self.models if model.label == label)

    @property
    def labels(self) -> list[str]:
        """The candidates' labels: the choices of the study's `model` parameter."""
        return [model.label for model in self.models if not model.dropped]

    def drop_models(self, dropped: Mapping[str, str]) -> "StudyConfig":
        """Return a copy without some candidates, given by their labels, each with the reason."""
        models = tuple(m.model_copy(update={"dropped": dropped.get(m.label, m.dropped)}) for m in self.models)
        return self.model_copy(update={"models": models})

    def identity(self) -> dict[str, Any]:
        """Return the part of the configuration that may not change when a study is resumed.

        A local model is identified by its label, as its folder may be moved.
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
        """Return `to_dict` without the database URL, which may contain a password: it is recorded and displayed."""
        return {key: value for key, value in self.to_dict().items() if key != "storage"}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for YAML and the database, which `load_config` reads back."""
        plain = self.model_dump(mode="json", exclude={"search_space", "models", "backend"})
        plain["models"] = [model.model_dump(mode="json", exclude_defaults=True) for model in self.models]
        plain["search_space"] = self.search_space.to_dict()
        plain["backend"] = self.backend.to_dict()
        order = {name: index for index, name in enumerate(StudyConfig.model_fields)}
        return dict(sorted(plain.items(), key=lambda item: order[item[0]]))


def _strings(written: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each string in nested plain values, with its dotted key."""
    if isinstance(written, str):
        yield key, written
    elif isinstance(written, Mapping):
        for name, value in written.items():
            yield from _strings(value, f"{key}.{name}".lstrip("."))
            if has_secret(f"{name}=x") and isinstance(value, str):  # slurm's and plug-ins' options, by name
                yield f"{key}.{name}", f"{name}={value}"
    elif isinstance(written, list | tuple):
        for index, value in enumerate(written):
            yield from _strings(value, f"{key}[{index}]")
