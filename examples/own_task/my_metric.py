"""A metric of your own: a study names it as `metric: ./my_metric.py`, and the first value is optimized."""

from typing import Any

import datasets
import evaluate

direction = "maximize"


class MeanOfBoth(evaluate.Metric):
    """The mean accuracy of the two labels."""

    def _info(self) -> evaluate.MetricInfo:
        pair = datasets.Sequence(datasets.Value("int64"))
        features = datasets.Features({"predictions": pair, "references": pair})
        return evaluate.MetricInfo(description="mean accuracy", citation="", features=features)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        right = [
            one == other for p, r in zip(predictions, references, strict=True) for one, other in zip(p, r, strict=True)
        ]
        return {"mean_accuracy": sum(right) / len(right)}
