"""Small data files, tokenizers and the types of fixtures that read them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpo.tasks.task_data import TaskData

Prepare = Callable[..., TaskData]
Read = Callable[..., TaskData]


def rows(*labels: object, start: int = 0, header: str = "text,label") -> str:
    """Return a csv with one row for each label, all texts different."""
    return "\n".join([header, *(f"text number {row},{label}" for row, label in enumerate(labels, start))]) + "\n"


def numbered(*labels: Any, key: str = "label") -> list[dict[str, Any]]:
    """Return rows with different texts and `labels` under `key`."""
    return [{"text": f"text number {row}", key: label} for row, label in enumerate(labels)]


def bundled_tokenizer(name: str) -> Any:
    """Return the tokenizer of one of the bundled models."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(Path(__file__).parents[2] / "examples" / "models" / name)
