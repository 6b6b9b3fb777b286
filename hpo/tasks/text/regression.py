"""Regression: one or two texts → a number."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig
from hpo.core.direction import Direction
from hpo.data.columns import column_values, find_columns
from hpo.data.labels.regression import check_numbers, has_fractions, quantile_bins, read_numbers
from hpo.errors import DataError
from hpo.tasks.base import Predictions
from hpo.tasks.baselines import ridge_baseline
from hpo.tasks.metrics.scorer import Scorer, load_metric
from hpo.tasks.task_data import Labels, TaskData
from hpo.tasks.text.base import TextTask

if TYPE_CHECKING:
    import evaluate
    import torch

DIRECTIONS: dict[str, Direction] = {
    "pearson": "maximize",
    "spearman": "maximize",
    "r2": "maximize",
    "mse": "minimize",
    "rmse": "minimize",
    "mae": "minimize",
    "loss": "minimize",
}
ALIASES = {"pearsonr": "pearson", "spearmanr": "spearman"}
SAMPLE = ([0.1, 0.9, 0.6, 0.3], [0.0, 1.0, 0.5, 0.5])


class Regression(TextTask):
    """One or two texts → a number. See `Task` for what each method promises.

    A model learns the labels less their mean, over their deviation (both of the training split), so that usual learning
    rates serve any range. `finalize_model` folds both into the last linear layer: the saved model answers in the
    labels' units.
    """

    name = "text-regression"
    default_metric = "pearson"
    metric_names = tuple(DIRECTIONS)
    supports_ranking = True
    usage = (
        'measure = pipeline("text-classification", model="path/to/this/folder", function_to_apply="none")\n'
        'measure("a text")[0]["score"]'
    )
    limitations = "It gives a number for any text, also for one unlike those that it learnt from."

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

    def check_labels(
        self, splits: Mapping[str, Dataset], names: Sequence[str], origins: Mapping[str, str]
    ) -> list[str]:
        return check_numbers(splits, origins)

    def strata(self, rows: Dataset) -> list[int]:
        return quantile_bins(column_values(rows, "label"))

    def prepare(self, config: DataConfig, seed: int) -> TaskData:
        data = super().prepare(config, seed)
        train = np.array(column_values(data.train, "label"))
        mean, deviation = float(train.mean()), float(train.std())
        standardised = {
            split: _with_labels(rows, (np.array(column_values(rows, "label")) - mean) / deviation)
            for split, rows in data.splits.items()
        }
        return replace(data, **standardised, scale=(mean, deviation))

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
                "its head for numbers has no bias, so that the mean of the labels cannot be kept in it; encoders such "
                "as BERT and its kin have one"
            )
        return ""

    def encode_labels(self, rows: Dataset) -> pa.Array:
        return pa.array(column_values(rows, "label"), pa.float32())

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        """Squared error of standardised labels; label smoothing has no meaning here and does nothing."""
        from torch.nn.functional import mse_loss

        return mse_loss(logits.float().squeeze(-1), labels, reduction="sum")

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        return logits.squeeze(-1).cpu().numpy()

    def scorer(self, metric: str, data: TaskData | None = None) -> Scorer:
        mean, deviation = data.scale if data is not None else (0.0, 1.0)

        def in_units(values: NDArray[Any]) -> NDArray[Any]:
            return np.asarray(values, np.float64) * deviation + mean

        return load_metric(metric, partial(_own_metric, mean, deviation), DIRECTIONS, ALIASES, in_units, SAMPLE)

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
    """The linear layer whose output is the logits: in the head the one with a single output; None without such."""
    from torch import nn

    inside = {id(module) for module in model.base_model.modules()} if model.base_model is not model else set()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1 and id(m) not in inside]
    return layers[-1] if layers else None


def _with_labels(rows: Dataset, labels: NDArray[Any]) -> Dataset:
    return Dataset.from_dict(
        {**{name: column_values(rows, name) for name in rows.column_names if name != "label"}, "label": labels.tolist()}
    )


def _own_metric(mean: float, deviation: float) -> "evaluate.Metric":
    from hpo.tasks.metrics.regression import RegressionMetrics

    return RegressionMetrics(mean, deviation)
