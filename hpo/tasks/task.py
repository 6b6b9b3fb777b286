"""What a task is: which columns, which head, how to encode, which loss and metric. One file a task implements it."""

import hashlib
import json
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from datasets import Dataset

from hpo.core.config import DataConfig
from hpo.tasks.metrics import Scorer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TextInput = str | tuple[str, str]


@dataclass(frozen=True)
class TaskData:
    """A person's data as a task uses it: checked, split, with canonical columns.

    `columns` maps a role (text, text_pair, label) to the source column; `notes` say what was recognised, made and
    dropped; `fingerprint` is the SHA-256 of the content, whatever the file it stood in.
    """

    train: Dataset
    validation: Dataset
    test: Dataset | None
    label_names: tuple[str, ...]
    columns: Mapping[str, str]
    notes: tuple[str, ...]
    fingerprint: str

    @property
    def splits(self) -> dict[str, Dataset]:
        """The splits that there are, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: rows for split, rows in named.items() if rows is not None}

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each split."""
        return {split: len(rows) for split, rows in self.splits.items()}


def fingerprint(task: str, splits: Mapping[str, Dataset], label_names: Sequence[str]) -> str:
    """SHA-256 over a task's name, its classes in order and every row in order."""
    digest = hashlib.sha256(json.dumps([task, list(label_names)]).encode())
    for split, rows in sorted(splits.items()):
        names = sorted(rows.column_names)
        digest.update(json.dumps([split, names, len(rows)]).encode())
        for row in zip(*(rows.with_format(None)[name][:] for name in names), strict=True):
            digest.update(json.dumps(row).encode())
    return digest.hexdigest()


class Task(Protocol):
    """One kind of problem. Nothing here keeps state: the same task serves every trial."""

    name: str
    auto_class: str
    """The `transformers` class that makes the model, such as AutoModelForSequenceClassification."""
    pipeline: str
    """The `transformers.pipeline` that serves the final model."""
    default_metric: str

    def prepare(self, config: DataConfig, seed: int) -> TaskData:
        """Load, check and split the data. Raises `DataError` for every mistake in it; loads no torch."""
        ...

    def head(self, data: TaskData) -> dict[str, Any]:
        """What `from_pretrained` is told for the head: num_labels, id2label, label2id, problem_type."""
        ...

    def encode(self, rows: Dataset, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Dataset:
        """Tokenize, cut to `max_length` tokens, without padding.

        Columns: input_ids (list of int32), token_type_ids where the tokenizer makes them, labels where `rows` has
        them, length (tokens).
        """
        ...

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        """The loss in float32, summed: divided by the whole batch's `count`, gradient accumulation is exact."""
        ...

    def count(self, labels: Sized) -> int:
        """How many examples (or tokens) of a batch the loss sums over."""
        ...

    def predictions(self, logits: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """Logits of shape (examples, …) as what a metric compares with the labels."""
        ...

    def metrics(self, metric: str) -> Scorer:
        """The metric by name, or from a person's Python file. Raises `ConfigError` listing those there are."""
        ...

    def predict(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[TextInput],
        max_length: int,
        batch_size: int = 64,
    ) -> list[dict[str, Any]]:
        """Predict for inputs in their order: text (text_pair), label by name, score (its probability)."""
        ...

    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[TextInput]:
        """Read inputs to predict for from a csv, tsv, jsonl or parquet file, or a txt file with one a line.

        `columns` are those the model was trained on (role → column); where the file has others, they are
        recognised. Raises `DataError`.
        """
        ...

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        """A simple model's name and its metric on the test split; None where none applies."""
        ...
