"""Tasks by name."""

import pytest

from hpo.errors import ConfigError
from hpo.tasks.registry import TASKS, get_task


def test_unknown_task_raises_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'text-classification'"):
        get_task("text-clasification")
    assert all(task.name == name for name, task in TASKS.items())
