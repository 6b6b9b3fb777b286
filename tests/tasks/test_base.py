"""The base class of tasks: what a task must implement, and a task of a user's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.errors import ConfigError, DataError
from hpo.tasks.base import REQUIRED, Task
from hpo.tasks.registry import TASKS
from hpo.tasks.task_data import Labels, TaskData
from hpo.tasks.text.base import TextTask
from tests.tasks.small_data import rows


class Length(TextTask):
    """A text → the number in its label, as the smallest task of a user's own."""

    name = "length"
    default_metric = "mae"
    metric_directions = {"mae": "minimize", "loss": "minimize"}  # noqa: RUF012

    def read_labels(
        self, splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str], config: DataConfig
    ) -> Labels:
        return Labels({split: [int(label) for label in rows[column]] for split, rows in splits.items()})

    def head_config(self, data: TaskData) -> dict[str, Any]:
        return {"num_labels": 1}

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        return (logits.squeeze(-1).float() - labels).abs().sum()

    def reduce_logits(self, logits: torch.Tensor, labels: torch.Tensor) -> Sequence[Any]:
        return list(logits.squeeze(-1).cpu().numpy())

    def build_metric(self, data: TaskData | None) -> Any:
        from hpo.tasks.metrics.regression import RegressionMetrics

        return RegressionMetrics()

    def postprocess(self, logits: torch.Tensor, config: Any, processor: Any) -> list[dict[str, Any]]:
        return [{"label": number} for number in logits.squeeze(-1).tolist()]


@pytest.mark.parametrize(
    "method", sorted(Task.__abstractmethods__ - {"read_examples", "encode", "predict", "read_inputs"})
)
def test_task_without_an_abstract_method_raises_its_name(method: str) -> None:
    methods = {name: value for name, value in vars(Length).items() if name != method}
    with pytest.raises(TypeError, match=rf"abstract.*{method}"):
        type("Incomplete", (TextTask,), methods)()


@pytest.mark.parametrize("attribute", REQUIRED)
def test_task_without_a_required_attribute_raises_its_name(attribute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Length, TextTask):
        if attribute in vars(kind):
            monkeypatch.delattr(kind, attribute)
    with pytest.raises(TypeError, match=f"Length: it does not set {attribute}"):
        Length()


def test_every_task_leaves_nothing_abstract() -> None:
    assert not any(type(task).__abstractmethods__ for task in TASKS.values())
    assert Task.__abstractmethods__ == {
        *("read_examples", "encode", "loss", "reduce_logits", "build_metric", "predict", "read_inputs")
    }


def test_users_own_task_prepares_encodes_and_predicts(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(rows(*range(40)))
    task = Length()
    data = task.prepare(DataConfig(path=str(tmp_path / "d.csv")), 0)
    assert sum(data.sizes.values()) == 40 and task.describe(data) == f"{len(data.train)} training rows"
    encoded = task.encode(data.train, tokenizer, 8)
    assert set(encoded.column_names) == {"input_ids", "token_type_ids", "length", "labels"}
    predictions = task.predict(_one_output(model), tokenizer, ["a b", "c"], 8)
    assert [prediction["text"] for prediction in predictions] == ["a b", "c"]
    assert task.scorer("mae").direction == "minimize" and task.metric_names == ("mae", "loss")
    with pytest.raises(ConfigError, match="length has none"):
        task.with_class_weights(None, 2)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"data\.label: length reads one column of labels, not 2"):
        task.prepare(DataConfig(path=str(tmp_path / "d.csv"), label=("a", "b")), 0)


def _one_output(model: Any) -> Any:
    """Return a copy of the model with one output."""
    from transformers import BertForSequenceClassification

    config = type(model.config)(**{**model.config.to_dict(), "num_labels": 1, "id2label": {0: "number"}})
    return BertForSequenceClassification(config).eval()


def test_task_without_usage_shows_how_to_load_its_model() -> None:
    class Other(Task):
        auto_class = "AutoModelForTokenClassification"

    assert Other.usage.startswith("model = AutoModelForTokenClassification.from_pretrained(")
    assert "AutoTokenizer" in Other.usage


def test_generation_without_generate_raises() -> None:
    with pytest.raises(NotImplementedError, match="length sets `generation`"):
        Length().generate(None, {}, greedy=True)
