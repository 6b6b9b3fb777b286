"""Multi-label metrics equal scikit-learn's."""

import numpy as np
import pytest

from hpo.tasks.metrics.multi_label import MultiLabelMetrics


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_sklearn(seed: int) -> None:
    from sklearn import metrics

    rng = np.random.default_rng(seed)
    true, predicted = (rng.random((60, 5)) < 0.3 for _ in range(2))
    true[:, 4] = predicted[:, 4] = False  # a class that nobody has
    found = MultiLabelMetrics().compute(predictions=predicted.astype(int), references=true.astype(int))
    expected = {"accuracy": metrics.accuracy_score(true, predicted)}
    for name in ("f1", "precision", "recall"):
        for average in ("micro", "macro"):
            score = getattr(metrics, f"{name}_score")
            expected[f"{name}_{average}"] = score(true, predicted, average=average, zero_division=0)
    assert found == pytest.approx(expected)
