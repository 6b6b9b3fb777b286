"""The base class of all tasks, of three parts: data (`Preparation`), objective (`Objective`) and `Prediction`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self

from hpo.config.study import StudyConfig
from hpo.tasks.objective import Objective
from hpo.tasks.prediction import Prediction
from hpo.tasks.preparation import Preparation
from hpo.tasks.task_data import TaskData

SMALL_DATA = 500  # training rows below which a space tuned for few optimizer steps does better
ENCODERS = {
    "small": ("sentence-transformers/all-MiniLM-L6-v2", "distilbert/distilbert-base-uncased"),
    "base": ("FacebookAI/roberta-base", "answerdotai/ModernBERT-base", "google-bert/bert-base-uncased"),
    "large": ("FacebookAI/roberta-large", "answerdotai/ModernBERT-large"),
}
LOADING = """\
model = {auto_class}.from_pretrained("path/to/this/folder")
processor = {processor}.from_pretrained("path/to/this/folder")"""
REQUIRED = ("name", "auto_class", "pipeline_tag", "default_metric", "metric_directions")


class Task(Preparation, Objective, Prediction):
    """One kind of problem: which columns, which head, how to encode, which loss and metrics, how to predict.

    To write a task, derive from the class that reads its inputs and implement the methods it leaves abstract:

    - `hpo.tasks.text.base.TextTask`, one or two texts per row: `read_labels`, `loss`, `reduce_logits`, `build_metric`
      and `postprocess`;
    - `hpo.tasks.media.MediaTask`, an image or audio file per row, or its subclass `hpo.tasks.audio.base.AudioTask`;
    - `hpo.tasks.classification.Classification` before one of these, where the labels are classes: it implements all
      of `TextTask`'s;
    - `Task` itself for other inputs: `read_examples`, `encode`, `loss`, `reduce_logits`, `build_metric`, `predict` and
      `read_inputs`.

    Every task sets `name`, `auto_class`, `pipeline_tag`, `default_metric` and `metric_directions`; one whose labels are
    not class numbers sets `metric_sample` too, and one that reads several label columns overrides `find_columns`.
    Creating a task without one of the five, or without an abstract method, raises `TypeError` with its name. A task is
    created without arguments and keeps no state of a run. A study names one by file: `task: ./my_task.py`.
    """

    source_digest: str = ""
    """SHA-256 of the file of a user's own task, empty for others: cached features belong to one version of it."""
    default_metric: str
    """The metric that a study optimizes where it names none."""
    search_space: str = "text-encoders"
    """The bundled search space for data that is not scarce (see `suggest_space`)."""
    hub_models: Mapping[str, tuple[str, ...]] = MappingProxyType(ENCODERS)
    """Well-known models with safetensors weights that `hpo init` proposes, by size: small, base and large."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not hasattr(cls, "usage") and hasattr(cls, "auto_class"):
            cls.usage = LOADING.format(auto_class=cls.auto_class, processor=cls.final_processor_class)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        task = super().__new__(cls)
        missing = [name for name in REQUIRED if not hasattr(cls, name)]
        if missing:
            raise TypeError(f"Can't instantiate task {cls.__name__}: it does not set {', '.join(missing)}.")
        return task

    def configure(self, config: StudyConfig) -> Self:
        """Return the task as a study configures it."""
        return self

    def suggest_metric(self, data: TaskData) -> tuple[str, str]:
        """Return the metric to optimize on `data`, and the reason where it is not the default."""
        return self.default_metric, ""

    def suggest_space(self, data: TaskData) -> str:
        """Return the name of the bundled search space that `hpo init` writes for `data`."""
        small = self.search_space == "text-encoders" and len(data.train) < SMALL_DATA
        return "small-data" if small else self.search_space
