"""All classification metrics from one confusion matrix, as one `evaluate.Metric`.

A module of its own because `import evaluate` takes seconds before transformers is loaded: import it late.
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

    Predictions and references are class numbers, from 0, of the same length. Averages go over the classes that
    either holds; a ratio without a case counts 0.
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
            raise ValueError(f"{predicted.shape} predictions for {true.shape} references: one each is needed.")
        classes = int(max(predicted.max(), true.max())) + 1
        confusion = np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)
        hits = np.diag(confusion).astype(float)
        of_true, of_predicted = confusion.sum(1), confusion.sum(0)
        there = of_true + of_predicted > 0
        recall = _ratio(hits, of_true)[there]
        precision = _ratio(hits, of_predicted)[there]
        f1 = _ratio(2 * hits, of_true + of_predicted)[there]
        accuracy = float(hits.sum() / len(true))
        return {
            "accuracy": accuracy,
            "f1_macro": float(f1.mean()),
            "f1_micro": accuracy,  # one label a row: each wrong row is one false positive and one false negative
            "f1_weighted": float(f1 @ of_true[there] / len(true)),
            "precision_macro": float(precision.mean()),
            "recall_macro": float(recall.mean()),
            "mcc": _matthews(hits, of_true, of_predicted),
        }


def _ratio(part: "np.ndarray[Any, Any]", whole: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _matthews(
    hits: "np.ndarray[Any, Any]", of_true: "np.ndarray[Any, Any]", of_predicted: "np.ndarray[Any, Any]"
) -> float:
    """Matthews' correlation of several classes; 0 where predictions or references are all of one class."""
    rows = float(of_true.sum())
    true, predicted = of_true.astype(float), of_predicted.astype(float)
    spread = (rows**2 - predicted @ predicted) * (rows**2 - true @ true)
    return float((hits.sum() * rows - true @ predicted) / np.sqrt(spread)) if spread > 0 else 0.0


class AccuracyMetric(ClassificationMetrics):
    """The accuracy alone, for predictions that are no classes with a meaning of their own, such as choices."""

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"accuracy": super()._compute(predictions, references)["accuracy"]}
