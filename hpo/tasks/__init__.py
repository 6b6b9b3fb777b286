"""One file a task. To add one: its file, and its line here; the contract tests pick it up."""

from hpo.core.errors import ConfigError, did_you_mean
from hpo.tasks.task import Task
from hpo.tasks.text_classification import TextClassification

TASKS: dict[str, Task] = {
    "text-classification": TextClassification(),
}


def get_task(name: str) -> Task:
    """The task called `name`. Raises `ConfigError` naming those there are."""
    if name not in TASKS:
        raise ConfigError(f"task: '{name}' is not a task.{did_you_mean(name, TASKS)} Tasks: {', '.join(TASKS)}.")
    return TASKS[name]
