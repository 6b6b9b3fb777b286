"""Regression: one or two texts → a number."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig
from hpo.data.columns import column_values, find_columns
from hpo.data.labels.regression import check_numbers, has_fractions, quantile_bins, read_numbers
from hpo.errors import DataError
from hpo.tasks.baselines import ridge_baseline
from hpo.tasks.objective import Predictions
from hpo.tasks.task_data import Labels, TaskData
from hpo.tasks.text.base import PIPELINE, TextTask

if TYPE_CHECKING:
    import evaluate
    import torch


class Regression(TextTask):
    """One or two texts → a number.

    A model learns labels standardized by their mean and standard deviation in the training split, so that usual
    learning rates serve any range. `finalize_model` folds both into the last linear layer: the saved model predicts in
    the labels' units.
    """

    name = "text-regression"
    default_metric = "pearson"
    metric_directions = MappingProxyType(
        {
            "pearson": "maximize",
            "spearman": "maximize",
            "r2": "maximize",
            "mse": "minimize",
            "rmse": "minimize",
            "mae": "minimize",
            "loss": "minimize",
        }
    )
    metric_aliases = MappingProxyType({"pearsonr": "pearson", "spearmanr": "spearman"})
    metric_sample = ([0.1, 0.9, 0.6, 0.3], [0.0, 1.0, 0.5, 0.5])
    supports_ranking = True
    usage = PIPELINE.format(name="measure", options=', function_to_apply="none"') + '[0]["score"]'
    limitations = "It predicts a number for any text, also for one unlike its training texts."

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        if isinstance(config.label, tuple):
            return False
        try:
            return has_fractions(rows, find_columns(rows, "", config.text, config.label).label)
        except DataError:
            return False

    def read_labels(
        self, splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str], config: DataConfig
    ) -> Labels:
        return Labels(read_numbers(splits, column, origins))

    def check_splits(
        self, splits: Mapping[str, Dataset], label_names: Sequence[str], origins: Mapping[str, str]
    ) -> list[str]:
        return check_numbers(splits, origins)

    def strata(self, rows: Dataset) -> list[int]:
        return quantile_bins(column_values(rows, "label"))

    def prepare(self, config: DataConfig, seed: int) -> TaskData:
        data = super().prepare(config, seed)
        train = np.array(column_values(data.train, "label"))
        mean, deviation = float(train.mean()), float(train.std())
        standardized = {
            split: _with_labels(rows, (np.array(column_values(rows, "label")) - mean) / deviation)
            for split, rows in data.splits.items()
        }
        return replace(data, **standardized, scale=(mean, deviation))

    def describe(self, data: TaskData) -> str:
        mean, deviation = data.scale
        low, high = (mean + deviation * float(extreme(column_values(data.train, "label"))) for extreme in (min, max))
        return f"Numbers from {low:g} to {high:g}, {mean:.4g} on average"

    def head_config(self, data: TaskData) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    def check_model(self, model: Any, tokenizer: Any) -> str:
        layer = output_layer(model)
        if layer is None or layer.bias is None:
            return (
                "its regression head has no bias to keep the mean of the labels in; encoders such as BERT and its "
                "relatives have one"
            )
        return ""

    def encode_labels(self, rows: Dataset, processor: Any) -> pa.Array:
        return pa.array(column_values(rows, "label"), pa.float32())

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        """Return the squared error of standardized labels; label smoothing has no effect."""
        from torch.nn.functional import mse_loss

        return mse_loss(logits.float().squeeze(-1), labels, reduction="sum")

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        return logits.squeeze(-1).cpu().numpy()

    def build_metric(self, data: TaskData | None) -> "evaluate.Metric":
        from hpo.tasks.metrics.regression import RegressionMetrics

        return RegressionMetrics(*(data.scale if data is not None else (0.0, 1.0)))

    def metric_inputs(self, values: NDArray[Any], data: TaskData | None) -> NDArray[Any]:
        """Return standardized numbers in the user's units."""
        mean, deviation = data.scale if data is not None else (0.0, 1.0)
        return np.asarray(values, np.float64) * deviation + mean

    def finalize_model(self, model: Any, data: TaskData) -> None:
        import torch

        mean, deviation = data.scale
        layer = output_layer(model)
        with torch.no_grad():
            layer.weight.mul_(deviation)
            layer.bias.mul_(deviation).add_(mean)

    def postprocess(self, logits: "torch.Tensor", config: Any, processor: Any) -> list[dict[str, Any]]:
        return [{"label": number} for number in logits.squeeze(-1).tolist()]

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        return ridge_baseline(data, self.scorer(metric, data))


def output_layer(model: Any) -> Any:
    """Return the linear layer whose output is the logits: the last one of the head with a single output, if any."""
    from torch import nn

    inside = {id(module) for module in model.base_model.modules()} if model.base_model is not model else set()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1 and id(m) not in inside]
    return layers[-1] if layers else None


def _with_labels(rows: Dataset, labels: NDArray[Any]) -> Dataset:
    return Dataset.from_dict(
        {**{name: column_values(rows, name) for name in rows.column_names if name != "label"}, "label": labels.tolist()}
    )
