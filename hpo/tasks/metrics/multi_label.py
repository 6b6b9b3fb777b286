"""Metrics of several labels a row, as one `evaluate.Metric`.

A module of its own because `import evaluate` takes seconds before transformers is loaded: import it late.
"""

from typing import Any

import datasets
import evaluate
import numpy as np

from hpo.tasks.metrics.base import DirectMetric


class MultiLabelMetrics(DirectMetric):
    """f1, precision and recall (micro and macro) and accuracy (of whole sets), equal to scikit-learn's.

    Predictions and references are a 0 or 1 for each class, of the same shape [rows, classes]. A ratio without a case
    counts 0.
    """

    def _info(self) -> evaluate.MetricInfo:
        vectors = datasets.Sequence(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description="Metrics of several labels a row.",
            citation="",
            inputs_description="predictions, references: a 0 or 1 for each class.",
            features=datasets.Features({"predictions": vectors, "references": vectors}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        predicted, true = np.asarray(predictions, bool), np.asarray(references, bool)
        if predicted.shape != true.shape or predicted.ndim != 2 or not len(true):
            raise ValueError(f"{predicted.shape} predictions for {true.shape} references: one each is needed.")
        hits, said, there = ((array).sum(0).astype(float) for array in (predicted & true, predicted, true))
        values = {"accuracy": float((predicted == true).all(1).mean())}
        for name, part, whole in (
            ("f1", 2 * hits, said + there),
            ("precision", hits, said),
            ("recall", hits, there),
        ):
            each = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
            values[f"{name}_micro"] = float(part.sum() / whole.sum()) if whole.sum() else 0.0
            values[f"{name}_macro"] = float(each.mean())
        return values
