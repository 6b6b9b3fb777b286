"""Metrics of several labels per row, as one `evaluate.Metric`.

Import it inside functions: `import evaluate` takes seconds where transformers is not loaded yet.
"""

from typing import Any

import datasets
import evaluate
import numpy as np

from hpo.tasks.metrics.base import DirectMetric


class MultiLabelMetrics(DirectMetric):
    """f1, precision and recall (micro and macro) and the accuracy of full label sets, equal to scikit-learn's.

    Predictions and references are a 0 or 1 for each class, of the same shape [rows, classes]. A ratio with
    denominator 0 is 0.
    """

    def _info(self) -> evaluate.MetricInfo:
        vectors = datasets.Sequence(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description="Metrics of several labels per row.",
            citation="",
            inputs_description="predictions, references: a 0 or 1 for each class.",
            features=datasets.Features({"predictions": vectors, "references": vectors}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        predicted, true = np.asarray(predictions, bool), np.asarray(references, bool)
        if predicted.shape != true.shape or predicted.ndim != 2 or not len(true):
            raise ValueError(f"{predicted.shape} predictions for {true.shape} references: their shapes must be equal.")
        hits, positive, true_counts = (array.sum(0).astype(float) for array in (predicted & true, predicted, true))
        values = {"accuracy": float((predicted == true).all(1).mean())}
        for name, numerator, denominator in (
            ("f1", 2 * hits, positive + true_counts),
            ("precision", hits, positive),
            ("recall", hits, true_counts),
        ):
            each = np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
            values[f"{name}_micro"] = float(numerator.sum() / denominator.sum()) if denominator.sum() else 0.0
            values[f"{name}_macro"] = float(each.mean())
        return values
