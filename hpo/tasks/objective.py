"""The objective part of a task: which head, which loss, and which metrics."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from hpo.config.study import Generation
from hpo.core.direction import Direction
from hpo.errors import ConfigError
from hpo.tasks.metrics.scorer import CLASSES, Scorer, load_metric
from hpo.tasks.task_data import Encoded, TaskData, class_head_config

if TYPE_CHECKING:
    import evaluate
    import torch

Batch = dict[str, "torch.Tensor"]
Predictions = Sequence[Any] | NDArray[Any]


class Objective(ABC):
    """Configures a model for the task, computes its loss and scores its predictions.

    A task keeps no state of a run: one instance serves every trial.
    """

    name: str
    auto_class: str
    """The `transformers` class that creates the model, such as `AutoModelForSequenceClassification`."""
    processor_class: str = "AutoTokenizer"
    """The `transformers` class that loads a model's processor."""
    augmentations: tuple[str, ...] = ()
    """Names that the parameter `augmentation` may combine; `augment` implements them."""
    metric_directions: Mapping[str, Direction]
    """Direction of each of the task's own metrics. Contains `loss`, which hpo computes itself."""
    metric_aliases: Mapping[str, str] = MappingProxyType({})
    """Other names of the task's own metrics."""
    metric_sample: tuple[Any, Any] = CLASSES
    """A few predictions and references, as `align_predictions` returns them: a user's metric is tried on them."""
    class_weights: "torch.Tensor | None" = None
    """Weight of each class in the loss, set by `with_class_weights`; None: all classes weigh the same."""
    supports_class_weights: bool = False
    """Whether `with_class_weights` is implemented."""
    supports_ranking: bool = False
    """Whether models can be ranked by how well their frozen features separate the labels (`hpo rank`)."""
    generation: Generation | None = None
    """Generation settings, where predictions are texts that a model generates (`generate`)."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of the task's own metrics."""
        return tuple(self.metric_directions)

    def head_config(self, data: TaskData) -> dict[str, Any]:
        """Return the arguments of `from_pretrained` that configure the head: num_labels, id2label, problem_type, …

        By default one output per class.
        """
        return class_head_config(data.label_names) if data.label_names else {}

    def adapt_processor(self, processor: Any, data: TaskData) -> Any:
        """Return the processor to encode with, given the pretrained one: parts of it may come from the data."""
        return processor

    def build_model(self, source: str, **options: Any) -> Any:
        """Load a model with the task's head from `source`, a hub id or a folder: a candidate or a final model.

        `options` are those of `from_pretrained`, a candidate's head configuration among them. Override it to train a
        model of your own: a `PreTrainedModel`, whose class method `from_pretrained` accepts the same options.
        """
        import transformers

        return getattr(transformers, self.auto_class).from_pretrained(source, **options)

    def check_model(self, model: Any, processor: Any) -> str:
        """Return why a model and its processor cannot do this task; an empty string where they can.

        Called before anything is trained.
        """
        return ""

    def configure_model(self, model: Any, train: Encoded) -> None:
        """Configure a new model in place from its training inputs, such as the length of generated texts."""
        return

    def augment(self, batch: Batch, names: Sequence[str]) -> Batch:
        """Return a training batch, changed at random by the augmentations `names`, in turn.

        Called before `prepare_batch`. Random numbers must come from torch's generator, whose state checkpoints keep.
        """
        return batch

    def prepare_batch(self, batch: Batch, processor: Any) -> Batch:
        """Return the model's inputs, given a padded batch: encoded columns [inputs, longest, …] and `attention_mask`.

        Called in training, evaluation and prediction.
        """
        return batch

    def logits(self, model: Any, batch: "Mapping[str, torch.Tensor]") -> "torch.Tensor":
        """Run `model` and return its output for `loss` and `reduce_logits`: [inputs, …] or [inputs, tokens, …].

        By default the output `logits`; for a span head start and end logits, stacked to [inputs, tokens, 2].
        """
        return logits_of(model(**batch))

    @abstractmethod
    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        """Return the loss in float32, summed over the batch: hpo divides it by the sum of `target_count`.

        So gradient accumulation is exact. `labels` are [inputs], [inputs, k] or [inputs, tokens]; a padding token
        must not contribute.
        """
        ...

    def target_count(self, labels: Any) -> float:
        """Return the number of targets that `loss` sums over, or the sum of their class weights."""
        return len(labels)

    def with_class_weights(self, labels: NDArray[Any], classes: int) -> Self:
        """Return this task with a loss in which each of `classes` has the same total weight.

        `labels` are those of all training inputs. Raises `ConfigError` where the task has no classes.
        """
        raise ConfigError(f"class_weights: balanced is for tasks with classes, and {self.name} has none.")

    @abstractmethod
    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        """Reduce a batch's logits to what is kept for the metrics, one entry per input, on the CPU.

        The logits of a split may not fit into memory: 1,000 texts of 128 tokens and 50 tags take 26 MB.
        """
        ...

    def generate(self, model: Any, inputs: "Mapping[str, torch.Tensor]", greedy: bool) -> Predictions:
        """Return the tokens that `model` generates, one entry per input, where the task has a `generation`.

        `inputs` are padded `input_ids` and `attention_mask`; `greedy` turns beam search off.
        """
        raise NotImplementedError(f"{self.name} sets `generation`, which needs `generate`.")

    def align_predictions(self, predictions: Predictions, split: Encoded) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return predictions and references as metrics compare them, [examples] or [examples, k] each.

        `predictions` are those of `reduce_logits` (or `generate`) for all inputs of `split`, in order.
        """
        return np.asarray(predictions), np.asarray(split.labels)

    @abstractmethod
    def build_metric(self, data: TaskData | None) -> "evaluate.Metric":
        """Create the task's own metric, whose results are the keys of `metric_directions` without `loss`.

        Its inputs are those of `align_predictions`. `data` has the class names and the scale of the labels; without
        it class numbers are used as names. Import `evaluate` here, not at the top of a module: it takes seconds.
        """
        ...

    def metric_inputs(self, values: NDArray[Any], data: TaskData | None) -> Any:
        """Return predictions or references in the form that metrics other than the task's own read."""
        return values

    def scorer(self, metric: str, data: TaskData | None = None) -> Scorer:
        """Return the metric called `metric`: one of the task's own, one of `evaluate`, or a user's Python file.

        Raises `ConfigError` listing the metrics available.
        """
        return load_metric(
            metric,
            lambda: self.build_metric(data),
            self.metric_directions,
            self.metric_aliases,
            lambda values: self.metric_inputs(values, data),
            self.metric_sample,
        )

    def confusion_matrix(
        self, predictions: NDArray[Any], references: NDArray[Any], data: TaskData
    ) -> dict[str, Any] | None:
        """Return `labels` (class names) and `matrix` (counts, [true, predicted]); None where the task has none."""
        return None

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        """Return the name of a simple model and its `metric` on the test split; None where none applies."""
        return None


def logits_of(output: Any) -> "torch.Tensor":
    """Return a model output's logits; those of a span head are stacked to [inputs, tokens, 2] (start, end)."""
    import torch

    if "start_logits" in output:
        return torch.stack([output["start_logits"], output["end_logits"]], dim=-1)
    logits: torch.Tensor = output["logits"]
    return logits
