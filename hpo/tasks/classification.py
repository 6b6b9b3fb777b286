"""Classification of an input into one of several classes, whatever the input is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig
from hpo.data.checks import check_classes, count_conflicts
from hpo.data.columns import column_values
from hpo.data.labels.classes import read_classes
from hpo.tasks.base import Task
from hpo.tasks.class_weights import balanced_weights, total_weight, weighted
from hpo.tasks.objective import Predictions
from hpo.tasks.task_data import Labels, TaskData

if TYPE_CHECKING:
    import evaluate
    import torch


class Classification(Task):
    """One class per input. A mixin: a task derives from it and from the class that reads its inputs."""

    default_metric = "accuracy"
    blank_labels = (None, "", "-", "-1", -1)
    metric_directions = MappingProxyType(
        {
            "accuracy": "maximize",
            "f1_macro": "maximize",
            "f1_micro": "maximize",
            "f1_weighted": "maximize",
            "precision_macro": "maximize",
            "recall_macro": "maximize",
            "mcc": "maximize",
            "loss": "minimize",
        }
    )
    metric_aliases = MappingProxyType(
        {
            "f1": "f1_macro",
            "precision": "precision_macro",
            "recall": "recall_macro",
            "balanced_accuracy": "recall_macro",
            "matthews_correlation": "mcc",
        }
    )
    supports_ranking = True
    supports_class_weights = True

    def read_labels(
        self, splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str], config: DataConfig
    ) -> Labels:
        classes = read_classes(splits, column, origins)
        return Labels(classes.ids, classes.names, classes.notes)

    def check_splits(
        self, splits: Mapping[str, Dataset], label_names: Sequence[str], origins: Mapping[str, str]
    ) -> list[str]:
        return [*check_classes(splits, label_names, origins), *count_conflicts(splits)]

    def strata(self, rows: Dataset) -> list[int]:
        return column_values(rows, "label")

    def suggest_metric(self, data: TaskData) -> tuple[str, str]:
        """Return accuracy, or macro-F1 where the classes are so uneven that accuracy hides the small ones."""
        counts = Counter(column_values(data.train, "label"))
        ratio = max(counts.values()) / max(1, min(counts.values()))
        if ratio >= 3 and len(counts) <= 20:  # with many classes, the two extremes are not representative
            return "f1_macro", f"f1_macro, since the largest class has {ratio:.0f} times the rows of the smallest."
        return "accuracy", ""

    def head_config(self, data: TaskData) -> dict[str, Any]:
        return {**super().head_config(data), "problem_type": "single_label_classification"}

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        from torch.nn.functional import cross_entropy

        weight = None if self.class_weights is None else self.class_weights.to(logits.device)
        return cross_entropy(logits.float(), labels, weight, reduction="sum", label_smoothing=label_smoothing)

    def target_count(self, labels: Any) -> float:
        return total_weight(labels, self.class_weights)

    def with_class_weights(self, labels: NDArray[Any], classes: int) -> Self:
        return weighted(self, balanced_weights(labels, classes))

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        return logits.argmax(-1).cpu().numpy()

    def build_metric(self, data: TaskData | None) -> "evaluate.Metric":
        from hpo.tasks.metrics.classification import ClassificationMetrics

        return ClassificationMetrics()

    def confusion_matrix(self, predictions: NDArray[Any], references: NDArray[Any], data: TaskData) -> dict[str, Any]:
        matrix = np.zeros((len(data.label_names),) * 2, dtype=int)
        np.add.at(matrix, (references, predictions), 1)
        return {"labels": list(data.label_names), "matrix": matrix.tolist()}

    def probabilities(self, logits: "torch.Tensor") -> "torch.Tensor":
        return logits.softmax(-1)

    def postprocess(self, logits: "torch.Tensor", config: Any, processor: Any) -> list[dict[str, Any]]:
        best, classes = self.probabilities(logits).max(-1)
        return [
            {"label": config.id2label[number], "score": score}
            for number, score in zip(classes.tolist(), best.tolist(), strict=True)
        ]
