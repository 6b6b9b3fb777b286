"""Text classification: one or two texts → one class of several."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from hpo.core.config import DataConfig
from hpo.data.checks import check_classes, count_conflicts
from hpo.data.columns import column_values
from hpo.data.labels import read_classes
from hpo.tasks.baseline import tfidf_baseline
from hpo.tasks.class_weights import balanced_weights, total_weight, weighted
from hpo.tasks.metrics import Direction, Scorer, load_metric
from hpo.tasks.task import Predictions, TaskData
from hpo.tasks.text_task import Labels, TextTask, describe_classes

if TYPE_CHECKING:
    import evaluate
    import torch

DIRECTIONS: dict[str, Direction] = {
    "accuracy": "maximize",
    "f1_macro": "maximize",
    "f1_micro": "maximize",
    "f1_weighted": "maximize",
    "precision_macro": "maximize",
    "recall_macro": "maximize",
    "mcc": "maximize",
    "loss": "minimize",
}
ALIASES = {
    "f1": "f1_macro",
    "precision": "precision_macro",
    "recall": "recall_macro",
    "balanced_accuracy": "recall_macro",
    "matthews_correlation": "mcc",
}


class TextClassification(TextTask):
    """One or two texts → a class. See `Task` for what each method promises."""

    name = "text-classification"
    default_metric = "accuracy"
    metric_names = tuple(DIRECTIONS)
    has_classes = True
    limits = "It knows the classes above only, and gives one of them to any text."

    def recognises(self, rows: Dataset, config: DataConfig) -> bool:
        return True

    def read_labels(
        self, splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str], config: DataConfig
    ) -> Labels:
        classes = read_classes(splits, column, origins)
        return Labels(classes.ids, classes.names, classes.notes)

    def check_labels(
        self, splits: Mapping[str, Dataset], names: Sequence[str], origins: Mapping[str, str]
    ) -> list[str]:
        return [*check_classes(splits, names, origins), *count_conflicts(splits)]

    def strata(self, rows: Dataset) -> list[int]:
        return column_values(rows, "label")

    def describe(self, data: TaskData) -> str:
        return describe_classes(data.label_names)

    def suggest_metric(self, data: TaskData) -> tuple[str, str]:
        """Accuracy, or macro-F1 where the classes are so uneven that accuracy hides the small ones."""
        counts = Counter(column_values(data.train, "label"))
        ratio = max(counts.values()) / max(1, min(counts.values()))
        if ratio >= 3 and len(counts) <= 20:  # of many classes, the two extremes say little
            return "f1_macro", f"f1_macro, since the largest class has {ratio:.0f} times the rows of the smallest."
        return "accuracy", ""

    def head(self, data: TaskData) -> dict[str, Any]:
        return {**named_head(data.label_names), "problem_type": "single_label_classification"}

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        from torch.nn.functional import cross_entropy

        weight = None if self.weights is None else self.weights.to(logits.device)
        return cross_entropy(logits.float(), labels, weight, reduction="sum", label_smoothing=label_smoothing)

    def count(self, labels: Any) -> float:
        return total_weight(labels, self.weights)

    def balanced(self, labels: NDArray[Any], classes: int) -> "TextClassification":
        return weighted(self, balanced_weights(labels, classes))

    def predictions(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        return logits.argmax(-1).cpu().numpy()

    def metrics(self, metric: str, data: TaskData | None = None) -> Scorer:
        return load_metric(metric, _own_metric, DIRECTIONS, ALIASES)

    def confusion(self, predictions: NDArray[Any], references: NDArray[Any], data: TaskData) -> dict[str, Any]:
        matrix = np.zeros((len(data.label_names),) * 2, dtype=int)
        np.add.at(matrix, (references, predictions), 1)
        return {"labels": list(data.label_names), "matrix": matrix.tolist()}

    def answers(self, logits: "torch.Tensor", config: Any) -> list[dict[str, Any]]:
        best, classes = logits.softmax(-1).max(-1)
        return [
            {"label": config.id2label[number], "score": score}
            for number, score in zip(classes.tolist(), best.tolist(), strict=True)
        ]

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        return tfidf_baseline(data, self.metrics(metric))


def named_head(names: Sequence[str]) -> dict[str, Any]:
    """A head with one output a class, and the names of the classes."""
    numbered = dict(enumerate(names))
    return {
        "num_labels": len(numbered),
        "id2label": numbered,
        "label2id": {name: number for number, name in numbered.items()},
    }


def _own_metric() -> "evaluate.Metric":
    from hpo.tasks.classification_metric import ClassificationMetrics

    return ClassificationMetrics()
