"""Files as a person writes them, each text another."""

from collections.abc import Callable

from hpo.tasks.task_data import TaskData

Prepare = Callable[..., TaskData]


def rows(*labels: object, start: int = 0, header: str = "text,label") -> str:
    """A csv with one row for each label."""
    return "\n".join([header, *(f"text number {start + place},{label}" for place, label in enumerate(labels))]) + "\n"
