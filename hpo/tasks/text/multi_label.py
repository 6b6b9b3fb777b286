"""Multi-label classification: one or two texts → any number of classes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig
from hpo.core.direction import Direction
from hpo.data.columns import Columns, column_values, find_columns
from hpo.data.labels.multi_label import check_label_sets, holds_lists, join_columns, rarest_label, read_label_sets
from hpo.data.sources import RawSplits, load_splits
from hpo.errors import DataError
from hpo.tasks.base import Predictions
from hpo.tasks.baselines import tfidf_baseline
from hpo.tasks.class_weights import balanced_weights, weighted
from hpo.tasks.metrics.scorer import Scorer, load_metric
from hpo.tasks.task_data import Labels, TaskData, class_head_config, describe_classes
from hpo.tasks.text.base import TextTask

if TYPE_CHECKING:
    import evaluate
    import torch

DIRECTIONS: dict[str, Direction] = {
    "f1_micro": "maximize",
    "f1_macro": "maximize",
    "precision_micro": "maximize",
    "precision_macro": "maximize",
    "recall_micro": "maximize",
    "recall_macro": "maximize",
    "accuracy": "maximize",
    "loss": "minimize",
}
ALIASES = {"f1": "f1_micro", "precision": "precision_micro", "recall": "recall_micro", "subset_accuracy": "accuracy"}
SAMPLE = (np.array([[0, 1], [1, 1], [1, 0]]), np.array([[0, 1], [1, 0], [0, 1]]))


class MultiLabelClassification(TextTask):
    """One or two texts → the classes whose probability is above a half. See `Task` for what each method promises."""

    name = "multi-label-classification"
    default_metric = "f1_micro"
    metric_names = tuple(DIRECTIONS)
    supports_ranking = True
    supports_class_weights = True
    usage = 'classify = pipeline("text-classification", model="path/to/this/folder", top_k=None)\nclassify("a text")'
    limitations = "It knows the classes above only; those with a score above 0.5 are its answer, which may be none."

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        if isinstance(config.label, tuple):
            return True
        try:
            label = find_columns(rows, "", config.text, config.label).label
        except DataError:
            return False
        return holds_lists(rows, label) or config.label_delimiter is not None

    def load(self, config: DataConfig, seed: int) -> tuple[RawSplits, Columns]:
        if not isinstance(config.label, tuple):
            return super().load(config, seed)
        raw = load_splits(config, seed)
        joined = {
            split: join_columns(rows, config.label, raw.origins[split])
            for split, rows in raw.present().items()
            if split != "test" or any(name in rows.column_names for name in config.label)
        }
        raw = replace(raw, **{"test": None, **joined})
        return raw, find_columns(raw.train, raw.origins["train"], config.text, "labels")

    def read_labels(
        self, splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str], config: DataConfig
    ) -> Labels:
        vectors, names, notes = read_label_sets(splits, column, origins, config.label_delimiter)
        return Labels(vectors, names, tuple(notes))

    def check_labels(
        self, splits: Mapping[str, Dataset], names: Sequence[str], origins: Mapping[str, str]
    ) -> list[str]:
        return check_label_sets(splits, names, origins)

    def strata(self, rows: Dataset) -> list[int]:
        return rarest_label(rows)

    def describe(self, data: TaskData) -> str:
        each = np.array(column_values(data.train, "label")).sum(1).mean()
        return f"{describe_classes(data.label_names)}; {each:.1f} a row"

    def head_config(self, data: TaskData) -> dict[str, Any]:
        return {**class_head_config(data.label_names), "problem_type": "multi_label_classification"}

    def encode_labels(self, rows: Dataset) -> pa.Array:
        matrix = np.array(column_values(rows, "label"), dtype=np.int8)
        return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        """Binary cross entropy, the mean over classes; smoothing moves both targets towards a half."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        targets = labels.float() * (1 - label_smoothing) + label_smoothing / 2
        weight = None if self.class_weights is None else self._weights_of(labels)
        return binary_cross_entropy_with_logits(logits.float(), targets, weight, reduction="sum") / logits.shape[-1]

    def target_count(self, labels: Any) -> float:
        return len(labels) if self.class_weights is None else float(self._weights_of(labels).sum() / labels.shape[-1])

    def with_class_weights(self, labels: NDArray[Any], classes: int) -> "MultiLabelClassification":
        """Of each class, the rows that have it weigh as much in all as those that have not."""
        return weighted(self, np.stack([balanced_weights(column, 2) for column in labels.T.astype(np.int64)]))

    def _weights_of(self, labels: "torch.Tensor") -> "torch.Tensor":
        """The weights of each row's yes and no to each class, of the shape of `labels`."""
        assert self.class_weights is not None
        no, yes = self.class_weights.to(labels.device).unbind(-1)
        return yes * labels + no * (1 - labels)

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        return (logits > 0).cpu().numpy().astype(np.int8)

    def scorer(self, metric: str, data: TaskData | None = None) -> Scorer:
        def as_lists(values: NDArray[Any]) -> list[list[int]]:
            return np.asarray(values, dtype=int).tolist()

        return load_metric(metric, _own_metric, DIRECTIONS, ALIASES, as_lists, SAMPLE)

    def postprocess(self, logits: "torch.Tensor", config: Any, processor: Any) -> list[dict[str, Any]]:
        said = []
        for scores in logits.sigmoid().tolist():
            over = {config.id2label[number]: score for number, score in enumerate(scores) if score > 0.5}
            said.append({"label": list(over), "score": list(over.values())})
        return said

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        return tfidf_baseline(data, self.scorer(metric))


def _own_metric() -> "evaluate.Metric":
    from hpo.tasks.metrics.multi_label import MultiLabelMetrics

    return MultiLabelMetrics()
