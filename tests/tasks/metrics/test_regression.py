"""Regression metrics equal those of SciPy and scikit-learn."""

import numpy as np
import pytest

from hpo.tasks.metrics.regression import RegressionMetrics


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_scipy_and_sklearn(seed: int) -> None:
    from scipy import stats
    from sklearn import metrics

    rng = np.random.default_rng(seed)
    true = rng.normal(size=200)
    predicted = np.round(true + rng.normal(size=200), 1)  # with ties
    found = RegressionMetrics(mean=1000.0, deviation=25.0).compute(predictions=predicted, references=true)
    in_units = (1000 + 25 * true, 1000 + 25 * predicted)
    assert found == pytest.approx(
        {
            "pearson": stats.pearsonr(*in_units).statistic,
            "spearman": stats.spearmanr(*in_units).statistic,
            "r2": metrics.r2_score(*in_units),
            "mse": metrics.mean_squared_error(*in_units),
            "rmse": metrics.root_mean_squared_error(*in_units),
            "mae": metrics.mean_absolute_error(*in_units),
        }
    )


def test_undefined_correlation_is_zero_and_nan_is_kept() -> None:
    metric = RegressionMetrics()
    assert metric.compute(predictions=[2.0, 2.0], references=[1.0, 3.0])["pearson"] == 0.0
    assert np.isnan(metric.compute(predictions=[np.nan, 2.0], references=[1.0, 3.0])["pearson"])
