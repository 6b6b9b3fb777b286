"""What a task is: which columns, which head, how to encode, which loss and metric. One file a task implements it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig, Generation, StudyConfig
from hpo.errors import ConfigError
from hpo.tasks.metrics.scorer import Scorer
from hpo.tasks.task_data import Encoded, TaskData

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Batch = dict[str, "torch.Tensor"]
TextInput = str | tuple[str, str]
Predictions = Sequence[Any] | NDArray[Any]

LITTLE = 500  # training rows below which few steps are what makes tuning fail
ENCODERS = {
    "small": ("sentence-transformers/all-MiniLM-L6-v2", "distilbert/distilbert-base-uncased"),
    "base": ("FacebookAI/roberta-base", "answerdotai/ModernBERT-base", "google-bert/bert-base-uncased"),
    "large": ("FacebookAI/roberta-large", "answerdotai/ModernBERT-large"),
}


def logits_of(output: Any) -> "torch.Tensor":
    """A model's logits; those of a head that marks spans side by side, of shape [inputs, tokens, 2]."""
    import torch

    if "start_logits" in output:
        return torch.stack([output["start_logits"], output["end_logits"]], dim=-1)
    logits: torch.Tensor = output["logits"]
    return logits


class Task(Protocol):
    """One kind of problem. Nothing here keeps state: the same task serves every trial.

    A task derives from it and fills in what is left open; what has a body here holds for most.
    """

    name: str
    source_digest: str = ""
    """SHA-256 of the file of a user's own task; empty for others. Cached features are of this version of it."""
    auto_class: str
    """The `transformers` class that makes the model, such as AutoModelForSequenceClassification."""
    pipeline_tag: str
    """What the hub calls such a model."""
    processor_class: str = "AutoTokenizer"
    """The `transformers` class that reads what makes a model's inputs."""
    final_processor_class: str = "AutoTokenizer"
    """The same for a final model."""
    encode_batch_size: int | None = None
    """So many rows are given to `encode` at once, where what it makes is large; None: all of them."""
    augmentations: tuple[str, ...] = ()
    """The names that the parameter `augmentation` may join: what `augment` knows."""
    default_metric: str
    metric_names: tuple[str, ...]
    """hpo's own metrics for it."""
    usage: str
    """Python that uses the final model with plain transformers, for its card."""
    limitations: str
    """A sentence for the card: what the model's answers are not."""
    class_weights: "torch.Tensor | None" = None
    """How much each class weighs in the loss (see `with_class_weights`); None: all the same."""
    supports_ranking: bool = False
    """Whether models can be ranked by how well their frozen features tell the labels (`hpo rank`)."""
    supports_class_weights: bool = False
    """Whether `with_class_weights` is implemented."""
    search_space: str = "text-encoders"
    """The ready-made space that suits the task where data is not scarce (see `suggest_space`)."""
    hub_models: Mapping[str, tuple[str, ...]] = MappingProxyType(ENCODERS)
    """Well-known candidates with safetensors weights on the hub that `hpo init` proposes, by what a person can afford.

    The sizes are small, base and large.
    """
    generation: Generation | None = None
    """How the task's predictions are written, where they are texts that a model generates (`generate`)."""

    def configure(self, config: StudyConfig) -> "Task":
        """The task as a study sets it."""
        return self

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        """Whether rows with such columns, as `config` names them, are likely meant for this task (`hpo init` asks)."""
        ...

    def prepare(self, config: DataConfig, seed: int) -> TaskData:
        """Load, check and split the data. Raises `DataError` for every mistake in it; loads no torch."""
        ...

    def describe(self, data: TaskData) -> str:
        """The labels in a few words, such as `2 classes: no, yes`."""
        ...

    def suggest_metric(self, data: TaskData) -> tuple[str, str]:
        """The metric to optimise on such data, and the reason where it is not the default."""
        return self.default_metric, ""

    def suggest_space(self, data: TaskData) -> str:
        """The ready-made search space that `hpo init` writes for such data."""
        little = self.search_space == "text-encoders" and len(data.train) < LITTLE
        return "small-data" if little else self.search_space

    def head_config(self, data: TaskData) -> dict[str, Any]:
        """What `from_pretrained` is told for the head: num_labels, id2label, label2id, problem_type."""
        ...

    def adapt_processor(self, processor: Any, data: TaskData) -> Any:
        """What makes the inputs of a model, of what it came with: some of it may have to come from the data."""
        return processor

    def build_model(self, source: str, **options: Any) -> Any:
        """Read a model with the task's head from `source`, a hub id or a folder: a candidate or a final model.

        `options` are those of `from_pretrained`, a candidate's head among them. Override it to train a model of your
        own: a `PreTrainedModel`, whose class method `from_pretrained` accepts the same options.
        """
        import transformers

        return getattr(transformers, self.auto_class).from_pretrained(source, **options)

    def check_model(self, model: Any, processor: Any) -> str:
        """Why a model with its processor cannot do this task, told before anything is trained; empty: it can."""
        return ""

    def encode(self, rows: Dataset, processor: Any, max_length: int) -> Dataset:
        """Rows as inputs, cut to `max_length` (tokens, samples) or into several of that length, without padding.

        Columns: what the model reads (input_ids and token_type_ids, lists of int32; pixels as nested fixed-size lists;
        sound as lists of 16-bit floats), length (what an input takes to compute, in tokens), and where `rows` has them
        labels: a number, a vector (Arrow's fixed-size list), or several numbers (list), such as one a token, padded
        with -100. A column whose name begins with `_` is not given to the model: `align_predictions` reads it.
        """
        ...

    def augment(self, batch: Batch, names: Sequence[str]) -> Batch:
        """A batch of training examples changed at random, by torch's generator, before `prepare_batch` gets it."""
        return batch

    def prepare_batch(self, batch: Batch, processor: Any) -> Batch:
        """What the model is given, of a batch of encoded and padded inputs with their `attention_mask`."""
        return batch

    def configure_model(self, model: Any, train: Encoded) -> None:
        """Set in place what a fresh model has to know of the rows it will be trained on, such as their length."""
        return

    def logits(self, model: Any, batch: "Mapping[str, torch.Tensor]") -> "torch.Tensor":
        """What a model says to a batch, as `loss` and `reduce_logits` take it."""
        return logits_of(model(**batch))

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        """The loss in float32, summed: divided by the whole batch's `target_count`, gradient accumulation is exact.

        `logits` are [inputs, …] or [inputs, tokens, …], of a head that marks spans [inputs, tokens, 2] (start, end).
        What a token of padding got must not matter.
        """
        ...

    def target_count(self, labels: Any) -> float:
        """How many examples (or tokens) of a batch the loss sums over; with class weights, what they weigh."""
        return len(labels)

    def with_class_weights(self, labels: NDArray[Any], classes: int) -> "Task":
        """This task with a loss in which each of `classes` weighs the same in all, by the training inputs' `labels`.

        Raises `ConfigError` where a task has none.
        """
        raise ConfigError(f"class_weights: balanced is for tasks with classes, and {self.name} has none.")

    def strata(self, rows: Dataset) -> Sequence[int]:
        """A number for each row, such as its class: splits and subsets hold the same share of each number."""
        return [0] * len(rows)

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        """What is kept of a batch's logits, one entry an input: metrics are computed from it when all are there."""
        ...

    def generate(self, model: Any, inputs: "Mapping[str, torch.Tensor]", greedy: bool) -> Predictions:
        """The tokens that a model generates for a batch, one entry an input, where the task has a `generation`.

        `inputs` are padded; `greedy` is for a quick look, without beams.
        """
        return ()

    def align_predictions(self, predictions: Predictions, split: Encoded) -> tuple[NDArray[Any], NDArray[Any]]:
        """The predictions of all inputs of `split` in order as a metric takes them, and what they should be.

        Both have one entry an example.
        """
        return np.asarray(predictions), np.asarray(split.labels)

    def scorer(self, metric: str, data: TaskData | None = None) -> Scorer:
        """The metric by name, or from a person's Python file. Raises `ConfigError` listing those there are.

        `data` tells what class numbers and standardised numbers stand for; without it they stand for themselves.
        """
        ...

    def confusion_matrix(
        self, predictions: NDArray[Any], references: NDArray[Any], data: TaskData
    ) -> dict[str, Any] | None:
        """Return `labels` and `matrix` (counts, true × predicted); None where a task has none."""
        return None

    def finalize_model(self, model: Any, data: TaskData) -> None:
        """Change a trained model in place to what is saved: one that answers in the person's own units."""
        return

    def predict(
        self,
        model: "PreTrainedModel",
        processor: Any,
        rows: Sequence[Any],
        max_length: int,
        batch_size: int = 64,
    ) -> list[dict[str, Any]]:
        """Predict for inputs in their order, by a final model; the input itself stands last in each answer."""
        ...

    def example_inputs(self, columns: Mapping[str, str]) -> tuple[str, ...]:
        """An input as `hpo predict` takes one: a text, or two, as the data had `columns` (role → column)."""
        return ("a text", "another text") if "text_pair" in columns else ("a text",)

    def parse_arguments(self, words: Sequence[str], columns: Mapping[str, str]) -> list[Any] | None:
        """The inputs that the words of a command are, as `predict` takes them; None: one of them is not whole."""
        if len(self.example_inputs(columns)) == 1:
            return list(words)
        return None if len(words) % 2 else list(zip(words[::2], words[1::2], strict=True))

    def describe_inputs(self, columns: Mapping[str, str]) -> str:
        """What one input is made of, for people: `pairs of 'question' and 'context'`."""
        named = [f"'{column}'" for role, column in columns.items() if role != "label"]
        return f"pairs of {' and '.join(named)}" if len(named) == 2 else ", ".join(named)

    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[Any]:
        """Read inputs to predict for from a file.

        `columns` are those the model was trained on (role → column); where the file has others, they are
        recognised. Raises `DataError`.
        """
        ...

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        """A simple model's name and its metric on the test split; None where none applies."""
        return None
