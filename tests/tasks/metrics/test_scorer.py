"""Metrics by name, by alias and from a user's file, each with its direction."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.errors import ConfigError
from hpo.tasks.metrics.scorer import check_direction
from hpo.tasks.registry import get_task

TASK = get_task("text-classification")


OWN = """
import datasets
import evaluate
from evaluate import Metric

{direction}

class Wrong(Metric):
    def _info(self):
        whole = datasets.Value("int64")
        return evaluate.MetricInfo(
            description="", citation="", features=datasets.Features({{"predictions": whole, "references": whole}})
        )

    def _compute(self, predictions, references):
        return {result}
"""


COUNTED = '{"mistakes": sum(p != r for p, r in zip(predictions, references)), "rows": len(references)}'


@pytest.mark.parametrize("name", TASK.metric_directions)
def test_own_metrics_have_a_direction_and_a_value(name: str) -> None:
    scorer = TASK.scorer(name)
    values = scorer(np.array([0, 1]), np.array([0, 1]))
    assert scorer.name == name
    assert set(values) == set(TASK.metric_directions) - {"loss"}
    assert scorer.direction == ("minimize" if name == "loss" else "maximize")


@pytest.mark.parametrize(("alias", "name"), [("f1", "f1_macro"), ("matthews_correlation", "mcc")])
def test_alias_returns_the_metric(alias: str, name: str) -> None:
    assert TASK.scorer(alias).name == name


def test_unknown_metric_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as error:
        TASK.scorer("acuracy")
    assert "Did you mean 'accuracy'?" in str(error.value)
    assert "f1_macro, f1_micro, f1_weighted" in str(error.value)
    assert "HF_HUB_OFFLINE" in str(error.value)


@pytest.mark.parametrize(("metric", "direction"), [("accuracy", "minimize"), ("loss", "maximize")])
def test_direction_that_contradicts_the_metric_raises(metric: str, direction: str) -> None:
    scorer = TASK.scorer(metric)
    with pytest.raises(ConfigError, match=f"direction: {direction} contradicts .* write {scorer.direction}"):
        check_direction(scorer, direction)  # type: ignore[arg-type]
    assert check_direction(scorer, None) == check_direction(scorer, scorer.direction) == scorer.direction


def test_user_metric_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mistakes_made.py"
    path.write_text(OWN.format(direction='direction = "minimize"', result=COUNTED))
    scorer = TASK.scorer(str(path))
    values = scorer(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 0]))
    assert (scorer.name, scorer.direction) == ("mistakes_made", "minimize")
    assert values["mistakes_made"] == values["mistakes"] == 2
    assert (values["rows"], values["accuracy"]) == (4, 0.5)


def test_user_metric_is_maximized_by_default(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(OWN.format(direction="", result=COUNTED))
    assert TASK.scorer(str(tmp_path / "m.py")).direction == "maximize"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import no_such_package", "cannot be imported: ModuleNotFoundError"),
        ("def score(predictions, references): return 1", "defines 0 subclasses of evaluate.Metric"),
        (OWN.format(direction='direction = "up"', result=COUNTED), "write 'maximize' or 'minimize'"),
        (OWN.format(direction="", result="1 / 0"), "m.py) failed: ZeroDivisionError"),
        (OWN.format(direction="", result="{}"), "not a name and a number"),
        (OWN.format(direction="", result="{}"), "sets `metric_sample`"),
        (OWN.format(direction="", result='{"m": float("nan")}'), "'m' returned nan for the predictions"),
        (OWN.format(direction="", result='{"m": float("-inf")}'), "a study needs a finite number"),
        (OWN.format(direction="", result="exit(0)"), "m.py) failed: SystemExit: 0"),
    ],
)
def test_invalid_user_metric_raises_before_training(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(content)
    with pytest.raises(ConfigError) as error:
        TASK.scorer(str(tmp_path / "m.py"))
    assert message in str(error.value)


def test_missing_metric_file_raises(tmp_path: Path) -> None:
    (tmp_path / "my_metric.py").write_text("")
    with pytest.raises(ConfigError) as error:
        TASK.scorer(str(tmp_path / "my_metrics.py"))
    assert str(tmp_path / "my_metrics.py") in str(error.value)
    assert "Did you mean 'my_metric.py'?" in str(error.value)


def test_user_metric_receives_class_names_and_the_users_units(tmp_path: Any) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import datasets\nimport evaluate\n\n\nclass Mine(evaluate.Metric):\n"
        "    def _info(self):\n        return evaluate.MetricInfo(description='', citation='', inputs_description='',\n"
        "            features=datasets.Features({'predictions': datasets.Sequence(datasets.Value('string')),\n"
        "                                        'references': datasets.Sequence(datasets.Value('string'))}))\n\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'first': float(predictions[0][0] == 'B-place')}\n"
    )
    from dataclasses import replace

    from datasets import Dataset

    from hpo.tasks.metrics.scorer import object_array
    from hpo.tasks.task_data import TaskData

    rows = Dataset.from_dict({"text": [["a"]], "label": [[0]]})
    data = TaskData(rows, rows, None, ("O", "B-place"), {}, (), "")
    scorer = get_task("token-classification").scorer(str(file), data)
    assert scorer(object_array([[1, 0]]), object_array([[0, 0]]))["mine"] == 1.0
    numbers = get_task("text-regression").scorer("mae", replace(data, scale=(100.0, 10.0)))
    assert numbers(np.array([0.0, 1.0]), np.array([0.5, 1.0]))["mae"] == pytest.approx(2.5)
