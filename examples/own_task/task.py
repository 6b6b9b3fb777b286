"""A task of your own: two labels for each pair of words. A study names it as `task: ./task.py`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from datasets import Dataset

import hpo
from hpo.config.study import DataConfig
from hpo.tasks.task_data import Labels, SourceColumns, TaskData
from hpo.tasks.text.base import TextTask

if TYPE_CHECKING:
    import evaluate
    import torch

KINDS, SIZES = ("animal", "plant"), ("large", "small")


class KindAndSize(TextTask):
    """A text such as `big oak` → its kind and its size, by one head with two outputs for each."""

    name = "kind-and-size"
    default_metric = "both"
    metric_directions = {"both": "maximize", "loss": "minimize"}  # noqa: RUF012
    metric_sample = ([(0, 1), (1, 1), (1, 0)], [(0, 1), (1, 0), (1, 0)])
    several_label_columns = True

    def find_columns(self, rows: Dataset, origin: str, config: DataConfig) -> SourceColumns:
        return SourceColumns({"text": "words", "label": "kind"}, ("words", "size"), "kind")

    def read_examples(
        self,
        splits: Mapping[str, Dataset],
        columns: SourceColumns,
        origins: Mapping[str, str],
        config: DataConfig,
    ) -> Any:
        return super().read_examples(splits, SourceColumns(columns.roles, ("words",), "kind"), origins, config)

    def read_labels(
        self, splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str], config: DataConfig
    ) -> Labels:
        values = {}
        for split, rows in splits.items():
            pairs = list(zip(rows["kind"], rows["size"], strict=True))
            for row, (kind, size) in enumerate(pairs, 1):
                if kind not in KINDS or size not in SIZES:
                    raise hpo.DataError(f"{origins[split]}, row {row}: '{kind}' and '{size}' are not known labels.")
            values[split] = [[KINDS.index(kind), SIZES.index(size)] for kind, size in pairs]
        return Labels(values)

    def encode_labels(self, rows: Dataset, processor: Any) -> pa.Array:
        return pa.array(rows["label"], pa.list_(pa.int64(), 2))

    def head_config(self, data: TaskData) -> dict[str, Any]:
        return {"num_labels": len(KINDS) + len(SIZES)}

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        from torch.nn.functional import cross_entropy

        kind, size = logits.float().split([len(KINDS), len(SIZES)], dim=-1)
        settings: dict[str, Any] = {"reduction": "sum", "label_smoothing": label_smoothing}
        return cross_entropy(kind, labels[:, 0], **settings) + cross_entropy(size, labels[:, 1], **settings)

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Any:
        return _best(logits).cpu().numpy()

    def build_metric(self, data: TaskData | None) -> "evaluate.Metric":
        import datasets
        import evaluate

        class Both(evaluate.Metric):
            """The fraction of rows with both labels right."""

            def _info(self) -> evaluate.MetricInfo:
                pair = datasets.Sequence(datasets.Value("int64"))
                features = datasets.Features({"predictions": pair, "references": pair})
                return evaluate.MetricInfo(description="both right", citation="", features=features)

            def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
                right = [list(p) == list(r) for p, r in zip(predictions, references, strict=True)]
                return {"both": sum(right) / len(right)}

        return Both(keep_in_memory=True)

    def postprocess(self, logits: "torch.Tensor", config: Any, processor: Any) -> list[dict[str, Any]]:
        return [{"label": f"{SIZES[size]} {KINDS[kind]}"} for kind, size in _best(logits).tolist()]


def _best(logits: "torch.Tensor") -> "torch.Tensor":
    """Return the best kind and size of each input, [inputs, 2]."""
    import torch

    kind, size = logits.split([len(KINDS), len(SIZES)], dim=-1)
    return torch.stack([kind.argmax(-1), size.argmax(-1)], dim=-1)
