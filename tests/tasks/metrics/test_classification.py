"""Classification metrics equal scikit-learn's."""

from pathlib import Path

import numpy as np
import pytest

from hpo.errors import ConfigError
from hpo.tasks.registry import get_task

TASK = get_task("text-classification")


@pytest.mark.parametrize(
    ("classes", "spread"),
    [
        (2, 2),
        (77, 77),
        (10, 3),  # most classes are never predicted
        (3, 1),  # one class predicted
    ],
)
def test_metrics_equal_sklearn(classes: int, spread: int) -> None:
    from sklearn.metrics import f1_score, matthews_corrcoef, precision_score, recall_score

    random = np.random.default_rng(classes)
    true = random.integers(classes, size=1000)
    predicted = np.where(random.random(1000) < 0.6, true, random.integers(spread, size=1000)) % spread
    expected = {
        "accuracy": (true == predicted).mean(),
        **{f"f1_{how}": f1_score(true, predicted, average=how) for how in ("macro", "micro", "weighted")},
        "precision_macro": precision_score(true, predicted, average="macro", zero_division=0.0),
        "recall_macro": recall_score(true, predicted, average="macro", zero_division=0.0),
        "mcc": matthews_corrcoef(true, predicted),
    }
    assert TASK.scorer("accuracy")(predicted, true) == pytest.approx(expected, abs=1e-12)


def test_batches_added_to_the_metric_give_the_same_result(tmp_path: Path) -> None:
    import evaluate

    from hpo.tasks.metrics.classification import ClassificationMetrics

    random = np.random.default_rng(0)
    predicted, true = random.integers(5, size=(2, 90))
    metric = ClassificationMetrics(cache_dir=str(tmp_path))
    assert isinstance(metric, evaluate.Metric)
    for start in range(0, 90, 30):
        metric.add_batch(predictions=predicted[start : start + 30], references=true[start : start + 30])
    assert metric.compute() == metric.compute(predictions=predicted, references=true)


def test_shape_mismatch_raises() -> None:
    with pytest.raises(ConfigError, match=r"\(3,\) predictions for \(2,\) references"):
        TASK.scorer("mcc")(np.array([0, 1, 0]), np.array([0, 1]))
