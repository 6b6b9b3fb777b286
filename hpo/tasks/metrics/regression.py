"""Metrics of predicted numbers, as one `evaluate.Metric`.

Import it inside functions: `import evaluate` takes seconds where transformers is not loaded yet.
"""

from typing import Any

import datasets
import evaluate
import numpy as np

from hpo.tasks.metrics.base import DirectMetric


class RegressionMetrics(DirectMetric):
    """pearson, spearman, r2, mse, rmse and mae, equal to SciPy's and scikit-learn's.

    Predictions and references are standardized: the user's numbers are `mean` + `deviation` times them. A correlation
    with a constant, which is undefined, is 0.
    """

    def __init__(self, mean: float = 0.0, deviation: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._mean, self._deviation = mean, deviation

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Correlations and errors of predicted numbers.",
            citation="",
            inputs_description="predictions, references: numbers.",
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        from scipy.stats import rankdata

        predicted, true = np.asarray(predictions, np.float64), np.asarray(references, np.float64)
        if predicted.shape != true.shape or predicted.ndim != 1 or not len(true):
            raise ValueError(f"{predicted.shape} predictions for {true.shape} references: their shapes must be equal.")
        error = (predicted - true) * self._deviation
        spread = float(np.var(true) * self._deviation**2)
        mse = float(np.mean(error**2))
        return {
            "pearson": _correlation(predicted, true),
            "spearman": _correlation(rankdata(predicted), rankdata(true)),
            "r2": 1 - mse / spread if spread > 0 else 0.0,
            "mse": mse,
            "rmse": mse**0.5,
            "mae": float(np.mean(np.abs(error))),
        }


def _correlation(one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]") -> float:
    """Return Pearson's correlation; NaN where a prediction is NaN, so that a diverged run is detected."""
    if not np.isfinite(one).all():
        return float("nan")
    one, other = one - one.mean(), other - other.mean()
    size = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other / size) if size > 0 else 0.0
