"""Prediction with a final model, from its folder alone: no database is opened and no study is needed."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset, disable_progress_bars

from hpo.config.model_ref import ModelRef
from hpo.config.study import DataConfig
from hpo.config.user_code import is_file, resolve
from hpo.data.columns import missing_column
from hpo.data.in_memory import is_table
from hpo.data.splits.labeled import labeled_splits
from hpo.errors import DataError
from hpo.storage.records.final_model import FinalModel
from hpo.tasks.base import Task
from hpo.tasks.inputs import read_inputs
from hpo.tasks.registry import get_task
from hpo.tasks.task_data import TaskData
from hpo.workflow.flags import PREDICT, as_flags

if TYPE_CHECKING:
    import pandas as pd
    import torch


class Predictor:
    """A final model with its task, on the GPU where there is one.

    The folder of a user's own task holds the Python file that defines it, and that of a model with code of its own
    that code; both are run: load folders you trust.
    """

    def __init__(self, folder: str | Path, device: str | None = None) -> None:
        """Load the model in `folder`. `device` is `cpu`, `cuda`, `cuda:1`, …; None: a GPU where there is one.

        Raises `StudyError` where the folder holds no final model of hpo, or one whose files were damaged.
        """
        self.folder = Path(folder)
        self.record = FinalModel.read(self.folder)
        self.record.check_files()
        self.task: Task = get_task(_from_folder(self.record.task, self.folder))
        self._device = device

    @cached_property
    def model(self) -> Any:
        """The model, in eval mode on its device."""
        import transformers

        from hpo.training.execution import available_devices

        transformers.utils.logging.disable_progress_bar()
        trusted = self.record.trust_remote_code
        model = self.task.build_model(str(self.folder), local_files_only=True, trust_remote_code=trusted).eval()
        return model.to(self._device or available_devices()[0])

    @cached_property
    def processor(self) -> Any:
        """The tokenizer, image processor or feature extractor that makes the model's inputs."""
        from hpo.training.models.processor import load_processor

        ref = ModelRef(name=str(self.folder), label="the final model", trust_remote_code=self.record.trust_remote_code)
        return load_processor(ref, self.task.final_processor_class)

    def predict(self, data: Any) -> list[dict[str, Any]]:
        """Predict for one input or several: one dictionary per input, in order.

        `data` is an input, or a list, Series or array of inputs; or rows with the columns that the model was trained
        on: a dict, a list of dicts, a DataFrame or a `datasets.Dataset`. `hpo.tasks.inputs.read_inputs` lists the
        inputs of each task. A dictionary holds the prediction (`label` by its name for most tasks, `score`, its
        probability) and the input itself. Raises `DataError` for anything else.
        """
        return self._predict(read_inputs(self.task, data, self.record.data.columns))

    def predict_proba(self, data: Any) -> "pd.DataFrame":
        """Return the probability of each class: one row per input, a column per class by its name.

        Of tasks with one class per input they sum to 1; with several, each is independent. `data` is as in `predict`.
        Raises `DataError` where the task has no probabilities of classes.
        """
        import pandas as pd
        import torch

        if self.task.probabilities(torch.zeros(1, 2)) is None:
            raise DataError(f"{self.task.name} predicts no classes with a probability each; see `predict`.")
        inputs, names = read_inputs(self.task, data, self.record.data.columns), self.record.data.labels
        rows = [found["probabilities"] for found in self._predict(inputs, _with_probabilities(self.task))]
        return pd.DataFrame(rows, columns=list(names), dtype=float)

    def evaluate(self, data: Any) -> dict[str, float]:
        """Return the model's metrics on labeled data with the columns that it was trained on, `loss` among them.

        `data` is a DataFrame, a `datasets.Dataset` or a path as in a study file; of a path with several splits, test.
        Regression losses are in the labels' units. Raises `DataError` where columns are missing, and for labels that
        the model does not know.
        """
        import tempfile

        from hpo.training.batches.encoding_cache import EncodingCache
        from hpo.training.evaluate import evaluate
        from hpo.training.execution import choose_execution, cores

        record, task = self.record, self.task
        with tempfile.TemporaryDirectory() as folder:
            rows = read_labeled_rows(task, data, record, Path(folder))
            prepared = TaskData(rows, rows, rows, record.data.labels, record.data.columns, (), "")
            metric = _from_folder(record.metric_source or record.metric, self.folder)
            scorer = replace(task.scorer(metric, prepared), name=record.metric)  # not that of the file's copy
            encodings = EncodingCache(Path(folder) / "encoded", task, prepared)
            features = encodings.get("test", self.processor, record.max_length or 0)
            # Not in bfloat16, as predictions are not: a regression head with a mean of 500 would round them to 2.
            execution = replace(choose_execution(str(self.model.device), cores()), dtype="float32")
            return evaluate(self.model, features, task, scorer, execution).metrics

    def predict_arguments(self, arguments: Sequence[str]) -> list[dict[str, Any]]:
        """Predict for the arguments of a command. Raises `DataError` where the last input is incomplete."""
        columns = self.record.data.columns
        inputs = self.task.parse_arguments(arguments, columns)
        if inputs is None:
            raise DataError(
                f"The model reads {self.task.describe_inputs(columns)}: give all of an input, such as "
                f"{example_command(self.task, columns)}, or --file FILE with these columns."
            )
        return self._predict(inputs)

    def predict_file(self, path: Path, encoding: str | None = None) -> list[dict[str, Any]]:
        """Predict for the inputs in a table, a txt file, or a folder of files.

        `encoding` is that of text files; None: that of the training data. Raises `DataError`.
        """
        used = encoding or self.record.data_config.get("encoding", "utf-8")
        try:
            return self._predict(self.task.read_inputs(path, self.record.data.columns, used))
        except DataError as error:
            raise DataError(as_flags(str(error), PREDICT)) from error

    def _predict(self, inputs: Sequence[Any], task: Task | None = None) -> list[dict[str, Any]]:
        if not inputs:
            return []
        return (task or self.task).predict(self.model, self.processor, inputs, self.record.max_length or 0)


def read_labeled_rows(task: Task, data: Any, record: FinalModel, folder: Path) -> Dataset:
    """Return labeled rows in canonical columns, with the class numbers of a final model; `folder` is for scratch files.

    Raises `DataError`.
    """
    if is_table(data):
        file = folder / "rows.parquet"
        disable_progress_bars()
        data.to_parquet(file, index=False) if hasattr(data, "iloc") else data.to_parquet(str(file))
    elif isinstance(data, str | Path):
        file = Path(data).expanduser().absolute()
    else:
        raise DataError(f"Labeled data is a path, a DataFrame or a Dataset, not {type(data).__name__}.")
    config = DataConfig(path=str(file), **record.data_config)
    task.check_config(config)
    raw = task.load(config, 0)
    split = "test" if raw.test is not None else "train"
    rows, origin = raw.present()[split], raw.origins[split]
    columns = task.find_columns(rows, origin, config)
    for role, column in record.data.columns.items():
        if columns.roles.get(role) != column:
            raise missing_column(origin, str(column), rows.column_names, origin)
    only = replace(raw, train=rows, validation=None, test=None, origins={"train": origin})
    labeled, _ = labeled_splits(only, columns.inputs, columns.label, task.input_key, task.label_noun)
    found = task.read_examples(labeled, columns, only.origins, config)
    names, trained = found.label_names, record.data.labels
    unknown = sorted(set(names) - set(trained))
    if unknown:
        raise DataError(f"{origin}: the model does not know the label '{unknown[0]}', only {', '.join(trained)}.")
    examples = found.splits["train"]
    return examples if names == trained else task.relabel(examples, names, trained)


def example_command(task: Task, columns: Mapping[str, str]) -> str:
    """Return an example of `hpo predict` for a final model of `task`, trained on `columns` (role → column)."""
    return " ".join(
        ["hpo predict", *(f'"{given}"' if " " in given else given for given in task.example_inputs(columns))]
    )


def _with_probabilities(task: Task) -> Task:
    """Return the task whose predictions are the probabilities of all classes: its own loop with another last step."""
    other = copy.copy(task)

    def postprocess(logits: "torch.Tensor", config: Any, processor: Any) -> list[dict[str, Any]]:
        found = task.probabilities(logits)
        return [] if found is None else [{"probabilities": row} for row in found.tolist()]

    other.postprocess = postprocess  # type: ignore[attr-defined]
    return other


def _from_folder(reference: str, folder: Path) -> str:
    """Return a task's or metric's reference; of a user's file, its copy in `folder`."""
    return resolve(reference, folder) if is_file(reference) else reference
