"""Tasks by name: hpo's own, those of a user's file, and those of installed packages."""

from typing import Any, cast

from datasets import Dataset

from hpo.config.space_files import ready_made_spaces
from hpo.config.study import DataConfig, StudyConfig
from hpo.config.user_code import (
    create,
    is_file,
    load_class,
    load_plugin,
    plugin_names,
    source_digest,
    split_reference,
)
from hpo.config.yaml import read_yaml
from hpo.errors import ConfigError, did_you_mean
from hpo.tasks.audio.audio_classification import AudioClassification
from hpo.tasks.audio.speech_recognition import SpeechRecognition
from hpo.tasks.base import Task
from hpo.tasks.generation.causal_lm import CausalLM
from hpo.tasks.generation.summarization import Summarization
from hpo.tasks.generation.translation import Translation
from hpo.tasks.text.multi_label import MultiLabelClassification
from hpo.tasks.text.multiple_choice import MultipleChoice
from hpo.tasks.text.question_answering import QuestionAnswering
from hpo.tasks.text.regression import Regression
from hpo.tasks.text.text_classification import TextClassification
from hpo.tasks.text.token_classification import TokenClassification
from hpo.tasks.vision.image_classification import ImageClassification

# `hpo init` picks the first that matches the data: the least specific is last.
TASKS: dict[str, Task] = {
    "image-classification": ImageClassification(),
    "speech-recognition": SpeechRecognition(),
    "audio-classification": AudioClassification(),
    "multiple-choice": MultipleChoice(),
    "question-answering": QuestionAnswering(),
    "token-classification": TokenClassification(),
    "causal-lm": CausalLM(),
    "summarization": Summarization(),
    "translation": Translation(),
    "multi-label-classification": MultiLabelClassification(),
    "text-regression": Regression(),
    "text-classification": TextClassification(),
}


PLUGINS = "hpo.tasks"
"""The entry point group in which installed packages register tasks."""


def get_task(name: str) -> Task:
    """Return the task called `name`: one of hpo's, one of a user's file (`file.py`), or one of an installed package.

    Raises `ConfigError` for an unknown name, and for a file or a package whose task cannot be imported.
    """
    if name in TASKS:
        return TASKS[name]
    if is_file(name):
        kind: Any = load_class(name, Task, "task")
        kind.source_digest = source_digest(split_reference(name)[0])
        return cast(Task, create(kind, "task"))
    found = load_plugin(PLUGINS, name, "task")
    if found is not None:
        return cast(Task, create(found, "task") if isinstance(found, type) else found)
    known = [*TASKS, *plugin_names(PLUGINS)]
    raise ConfigError(
        f"task: '{name}' is not a task.{did_you_mean(name, known)} Tasks: {', '.join(known)}; or a Python file such as "
        "./my_task.py."
    )


def infer_task(rows: Dataset, config: DataConfig) -> Task:
    """Return the task that `rows` are likely meant for; `config` may name the columns of text and label."""
    return next(task for task in TASKS.values() if task.matches(rows, config))


def with_metric(config: StudyConfig) -> StudyConfig:
    """Return the study with its task's default metric where it names none."""
    return config if config.metric else config.model_copy(update={"metric": get_task(config.task).default_metric})


def with_portfolio(config: StudyConfig) -> StudyConfig:
    """Return the study with the first trials of its task's bundled space, where its search space has none."""
    if config.portfolio:
        return config
    space = read_yaml(ready_made_spaces()[get_task(config.task).search_space])
    return config.model_copy(update={"portfolio": tuple(space.get("first_trials", ()))})
