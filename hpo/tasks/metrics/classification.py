"""All classification metrics from one confusion matrix, as one `evaluate.Metric`.

Import it inside functions: `import evaluate` takes seconds where transformers is not loaded yet.
"""

from typing import Any

import datasets
import evaluate
import numpy as np

from hpo.tasks.metrics.base import DirectMetric

SOURCES = """@article{matthews1975, title={Comparison of the predicted and observed secondary structure of T4 phage
lysozyme}, author={Matthews, B. W.}, journal={Biochimica et Biophysica Acta}, year={1975}}
(the multi-class form: Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, 2004)"""


class ClassificationMetrics(DirectMetric):
    """accuracy, f1_macro, f1_micro, f1_weighted, precision_macro, recall_macro and mcc, equal to scikit-learn's.

    Predictions and references are class numbers, from 0, of the same length. Averages are over the classes that
    occur in either; a ratio with denominator 0 is 0.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Classification metrics from one confusion matrix.",
            citation=SOURCES,
            inputs_description="predictions, references: class numbers from 0.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        predicted, true = np.asarray(predictions, np.int64), np.asarray(references, np.int64)
        if predicted.shape != true.shape or predicted.ndim != 1 or not len(true):
            raise ValueError(f"{predicted.shape} predictions for {true.shape} references: their shapes must be equal.")
        classes = int(max(predicted.max(), true.max())) + 1
        confusion = np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)
        hits = np.diag(confusion).astype(float)
        true_counts, predicted_counts = confusion.sum(1), confusion.sum(0)
        occurs = true_counts + predicted_counts > 0
        recall = _ratio(hits, true_counts)[occurs]
        precision = _ratio(hits, predicted_counts)[occurs]
        f1 = _ratio(2 * hits, true_counts + predicted_counts)[occurs]
        accuracy = float(hits.sum() / len(true))
        return {
            "accuracy": accuracy,
            "f1_macro": float(f1.mean()),
            "f1_micro": accuracy,  # with one label per row, an error is one false positive and one false negative
            "f1_weighted": float(f1 @ true_counts[occurs] / len(true)),
            "precision_macro": float(precision.mean()),
            "recall_macro": float(recall.mean()),
            "mcc": _matthews(hits, true_counts, predicted_counts),
        }


def _ratio(numerator: "np.ndarray[Any, Any]", denominator: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)


def _matthews(
    hits: "np.ndarray[Any, Any]", true_counts: "np.ndarray[Any, Any]", predicted_counts: "np.ndarray[Any, Any]"
) -> float:
    """Return the multi-class Matthews correlation; 0 where predictions or references are all of one class."""
    rows = float(true_counts.sum())
    true, predicted = true_counts.astype(float), predicted_counts.astype(float)
    spread = (rows**2 - predicted @ predicted) * (rows**2 - true @ true)
    return float((hits.sum() * rows - true @ predicted) / np.sqrt(spread)) if spread > 0 else 0.0


class AccuracyMetric(ClassificationMetrics):
    """Accuracy alone, for predictions that are not classes, such as the index of a choice."""

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"accuracy": super()._compute(predictions, references)["accuracy"]}
