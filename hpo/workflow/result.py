"""What a person gets from a search: the winner, its scores, and the final model, ready to use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna

from hpo.config.model_ref import ModelRef
from hpo.errors import DataError, StudyError
from hpo.storage.records.final_model import FinalModel
from hpo.storage.records.study import StudyRecord
from hpo.storage.storage import open_storage
from hpo.tasks.base import Task
from hpo.tasks.registry import get_task
from hpo.workflow.studies import open_study


@dataclass(frozen=True)
class Winner:
    """The configuration that won: its trial in the search, its parameters, its scores on fresh seeds."""

    trial: int
    params: dict[str, Any]
    scores: tuple[float, ...]
    seeds: tuple[int, ...]
    mean: float


@dataclass(frozen=True)
class Result:
    """A finished study. `study` is the plain `optuna.Study`; `record` all that was recorded of the outcome."""

    study: optuna.Study
    record: FinalModel

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.study_name

    @property
    def winner(self) -> Winner:
        """The winner, chosen on validation and confirmed on fresh seeds."""
        found = self.record.winner
        return Winner(found.trial, found.params, tuple(found.values.values()), tuple(found.values), found.mean)

    @property
    def params(self) -> dict[str, Any]:
        """The winner's resolved parameters, as `TrialParams` names them."""
        return self.winner.params

    @property
    def model_dir(self) -> Path:
        """The folder of the final model, which `from_pretrained` and `pipeline` load."""
        return self.record.model_dir

    @property
    def metrics(self) -> dict[str, float]:
        """The final model's scores on the test split; empty where there is none."""
        return dict(self.record.test.metrics) if self.record.test else {}

    def load_model(self) -> Any:
        """The final model, as its plain `AutoModelFor…` class."""
        return load_final(self.model_dir)[0]

    def predict(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Predict for texts (or pairs of texts): for each its text, label by name and score (a probability)."""
        return self._predictor.predict(rows)

    @cached_property
    def _predictor(self) -> "Predictor":
        return Predictor(self.model_dir)


class Predictor:
    """A final model with its task, from its folder alone."""

    def __init__(self, folder: Path) -> None:
        self.model, self.processor, self.record = load_final(folder)
        self.task = get_task(self.record.task)

    def predict(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Predictions in the order of `rows`. Raises `DataError` for a text alone where the model reads several."""
        columns = self.record.data.columns
        if any(isinstance(row, str) for row in rows) and len(self.task.example_inputs(columns)) > 1:
            raise DataError(f"The model reads {self.task.describe_inputs(columns)}: each input is a tuple of them.")
        return self.task.predict(self.model, self.processor, rows, self.record.max_length)

    def predict_given(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Predictions for the words of a command. Raises `DataError` where they are no whole inputs."""
        columns = self.record.data.columns
        inputs = self.task.parse_arguments(texts, columns)
        if inputs is None:
            raise DataError(
                f"The model reads {self.task.describe_inputs(columns)}: give all of an input, such as "
                f"{example_command(self.task, columns)}, or --file FILE with these columns."
            )
        return self.predict(inputs)

    def predict_file(self, path: Path) -> list[dict[str, Any]]:
        """Predictions for the inputs in a csv, tsv, jsonl, parquet or txt file."""
        return self.predict(self.task.read_inputs(path, self.record.data.columns))


def example_command(task: Task, columns: Mapping[str, str]) -> str:
    """How `hpo predict` is called for a final model of `task`, trained on `columns` (role → column)."""
    return " ".join(
        ["hpo predict", *(f'"{given}"' if " " in given else given for given in task.example_inputs(columns))]
    )


def load_final(folder: Path) -> tuple[Any, Any, FinalModel]:
    """Model, processor and record of a final model's folder. Raises `StudyError` when it is not there."""
    import transformers

    from hpo.training.models.processor import load_processor

    record = FinalModel.read(folder)
    transformers.utils.logging.disable_progress_bar()
    task = get_task(record.task)
    model = task.build_model(str(folder), local_files_only=True).eval()
    processor = load_processor(ModelRef(name=str(folder), label="the final model"), task.final_processor_class)
    return model, processor, record


def load(name: str | None = None, storage: str | None = None) -> Result:
    """The result of a finished study: `name`, or the latest. Raises `StudyError` for an unknown or unfinished one."""
    return load_result(open_study(open_storage(storage), name))


def load_result(study: optuna.Study) -> Result:
    """Return the result of `study`. Raises `StudyError` where it is not finished."""
    record = StudyRecord.of(study).result
    if record is None:
        raise StudyError(f"Study '{study.study_name}' is not finished; `hpo run` goes on with it.")
    return Result(study, record)
