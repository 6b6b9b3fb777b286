"""Multi-label classification: one or two texts → any number of classes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig
from hpo.data.columns import column_values, find_columns
from hpo.data.labels.label_lists import holds_lists, holds_written_lists
from hpo.data.labels.multi_label import (
    check_label_sets,
    holds_delimited,
    join_columns,
    rarest_label,
    read_label_sets,
)
from hpo.data.media.files import EXTENSIONS, holds_media
from hpo.data.splits.raw import RawSplits
from hpo.errors import DataError
from hpo.tasks.baselines import tfidf_baseline
from hpo.tasks.class_weights import balanced_weights, weighted
from hpo.tasks.objective import Predictions
from hpo.tasks.task_data import Labels, SourceColumns, TaskData, describe_classes
from hpo.tasks.text.base import PIPELINE, TextTask

if TYPE_CHECKING:
    import evaluate
    import torch


class MultiLabelClassification(TextTask):
    """One or two texts → the classes whose probability is above 0.5. Labels are a 0 or 1 for each class."""

    name = "multi-label-classification"
    default_metric = "f1_micro"
    several_label_columns = True
    metric_directions = MappingProxyType(
        {
            "f1_micro": "maximize",
            "f1_macro": "maximize",
            "precision_micro": "maximize",
            "precision_macro": "maximize",
            "recall_micro": "maximize",
            "recall_macro": "maximize",
            "accuracy": "maximize",
            "loss": "minimize",
        }
    )
    metric_aliases = MappingProxyType(
        {"f1": "f1_micro", "precision": "precision_micro", "recall": "recall_micro", "subset_accuracy": "accuracy"}
    )
    metric_sample = (np.array([[0, 1], [1, 1], [1, 0]]), np.array([[0, 1], [1, 0], [0, 1]]))
    supports_ranking = True
    supports_class_weights = True
    usage = PIPELINE.format(name="classify", options=", top_k=None")
    limitations = "It knows the classes above only, and assigns those with a score above 0.5, which may be none."

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        if isinstance(config.label, tuple):
            return True
        try:
            label = find_columns(rows, "", config.text, config.label).label
        except DataError:
            return False
        if holds_lists(rows, label) or config.label_delimiter is not None:
            return True
        return holds_written_lists(rows, label) or holds_delimited(rows, label)

    def load(self, config: DataConfig, seed: int) -> RawSplits:
        """Open the splits; several label columns of 0 and 1 are joined to one column of lists, `labels`."""
        raw = super().load(config, seed)
        if not isinstance(config.label, tuple):
            return raw
        joined = {
            split: join_columns(rows, config.label, raw.origins[split])
            for split, rows in raw.present().items()
            if split != "test" or any(name in rows.column_names for name in config.label)
        }
        return replace(raw, **{"test": None, **joined})

    def find_columns(self, rows: Dataset, origin: str, config: DataConfig) -> SourceColumns:
        label = "labels" if isinstance(config.label, tuple) else config.label
        columns = find_columns(rows, origin, config.text, label)
        media = [kind for kind in EXTENSIONS for name in columns.text if holds_media(rows, name, kind)]
        if media:
            raise DataError(
                f"{origin}, column '{columns.text[0]}': paths of {media[0]} files, but several labels per row are "
                "supported for texts only. Name one label column, and run a study for each."
            )
        return SourceColumns.from_columns(columns)

    def read_labels(
        self, splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str], config: DataConfig
    ) -> Labels:
        vectors, names, notes = read_label_sets(splits, column, origins, config.label_delimiter)
        return Labels(vectors, names, tuple(notes))

    def check_splits(
        self, splits: Mapping[str, Dataset], label_names: Sequence[str], origins: Mapping[str, str]
    ) -> list[str]:
        return check_label_sets(splits, label_names, origins)

    def strata(self, rows: Dataset) -> list[int]:
        return rarest_label(rows)

    def describe(self, data: TaskData) -> str:
        each = np.array(column_values(data.train, "label")).sum(1).mean()
        return f"{describe_classes(data.label_names)}; {each:.1f} a row"

    def head_config(self, data: TaskData) -> dict[str, Any]:
        return {**super().head_config(data), "problem_type": "multi_label_classification"}

    def encode_labels(self, rows: Dataset, processor: Any) -> pa.Array:
        matrix = np.array(column_values(rows, "label"), dtype=np.int8)
        return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        """Return the binary cross entropy, averaged over classes; smoothing moves both targets towards 0.5."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        targets = labels.float() * (1 - label_smoothing) + label_smoothing / 2
        weight = None if self.class_weights is None else self._weights_of(labels)
        return binary_cross_entropy_with_logits(logits.float(), targets, weight, reduction="sum") / logits.shape[-1]

    def target_count(self, labels: Any) -> float:
        return len(labels) if self.class_weights is None else float(self._weights_of(labels).sum() / labels.shape[-1])

    def with_class_weights(self, labels: NDArray[Any], classes: int) -> Self:
        """Return the task with a loss in which, for each class, rows with and without it have the same total weight."""
        return weighted(self, np.stack([balanced_weights(column, 2) for column in labels.T.astype(np.int64)]))

    def _weights_of(self, labels: "torch.Tensor") -> "torch.Tensor":
        """Return the weight of each label, [rows, classes]: a class has one for 0 and one for 1."""
        assert self.class_weights is not None
        negative, positive = self.class_weights.to(labels.device).unbind(-1)
        return positive * labels + negative * (1 - labels)

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        return (logits > 0).cpu().numpy().astype(np.int8)

    def build_metric(self, data: TaskData | None) -> "evaluate.Metric":
        from hpo.tasks.metrics.multi_label import MultiLabelMetrics

        return MultiLabelMetrics()

    def metric_inputs(self, values: NDArray[Any], data: TaskData | None) -> list[list[int]]:
        return np.asarray(values, dtype=int).tolist()

    def relabel(self, rows: Dataset, names: Sequence[str], trained: Sequence[str]) -> Dataset:
        labels = np.array(column_values(rows, "label"), dtype=int)
        vectors = np.zeros((len(rows), len(trained)), dtype=int)
        vectors[:, [trained.index(name) for name in names]] = labels
        return rows.remove_columns("label").add_column("label", vectors.tolist())

    def probabilities(self, logits: "torch.Tensor") -> "torch.Tensor":
        return logits.sigmoid()

    def postprocess(self, logits: "torch.Tensor", config: Any, processor: Any) -> list[dict[str, Any]]:
        predictions = []
        for scores in self.probabilities(logits).tolist():
            above = {config.id2label[number]: score for number, score in enumerate(scores) if score > 0.5}
            predictions.append({"label": list(above), "score": list(above.values())})
        return predictions

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        return tfidf_baseline(data, self.scorer(metric))
