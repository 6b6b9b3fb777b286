"""Metrics by name: equal to scikit-learn's, told apart when unknown, a person's own from a file."""

from pathlib import Path

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


@pytest.mark.parametrize(
    ("classes", "drawn"),
    [
        (2, 2),
        (77, 77),
        (10, 3),  # most classes are never predicted
        (3, 1),  # one class predicted
    ],
)
def test_equal_to_sklearn(classes: int, drawn: int) -> None:
    from sklearn.metrics import f1_score, matthews_corrcoef, precision_score, recall_score

    random = np.random.default_rng(classes)
    true = random.integers(classes, size=1000)
    predicted = np.where(random.random(1000) < 0.6, true, random.integers(drawn, size=1000)) % drawn
    expected = {
        "accuracy": (true == predicted).mean(),
        **{f"f1_{how}": f1_score(true, predicted, average=how) for how in ("macro", "micro", "weighted")},
        "precision_macro": precision_score(true, predicted, average="macro", zero_division=0.0),
        "recall_macro": recall_score(true, predicted, average="macro", zero_division=0.0),
        "mcc": matthews_corrcoef(true, predicted),
    }
    assert TASK.scorer("accuracy")(predicted, true) == pytest.approx(expected, abs=1e-12)


def test_it_is_an_evaluate_metric_that_gathers_batches_too(tmp_path: Path) -> None:
    import evaluate

    from hpo.tasks.metrics.classification import ClassificationMetrics

    random = np.random.default_rng(0)
    predicted, true = random.integers(5, size=(2, 90))
    metric = ClassificationMetrics(cache_dir=str(tmp_path))
    assert isinstance(metric, evaluate.Metric)
    for start in range(0, 90, 30):
        metric.add_batch(predictions=predicted[start : start + 30], references=true[start : start + 30])
    assert metric.compute() == metric.compute(predictions=predicted, references=true)


def test_predictions_must_match_references() -> None:
    with pytest.raises(ConfigError, match=r"\(3,\) predictions for \(2,\) references"):
        TASK.scorer("mcc")(np.array([0, 1, 0]), np.array([0, 1]))


@pytest.mark.parametrize("name", TASK.metric_directions)
def test_known_names_have_a_direction_and_are_among_the_values(name: str) -> None:
    scorer = TASK.scorer(name)
    values = scorer(np.array([0, 1]), np.array([0, 1]))
    assert scorer.name == name
    assert set(values) == set(TASK.metric_directions) - {"loss"}
    assert scorer.direction == ("minimize" if name == "loss" else "maximize")


@pytest.mark.parametrize(("alias", "name"), [("f1", "f1_macro"), ("matthews_correlation", "mcc")])
def test_other_names_for_the_same(alias: str, name: str) -> None:
    assert TASK.scorer(alias).name == name


def test_36_an_unknown_metric_lists_those_there_are() -> None:
    with pytest.raises(ConfigError) as told:
        TASK.scorer("acuracy")
    assert "Did you mean 'accuracy'?" in str(told.value)
    assert "f1_macro, f1_micro, f1_weighted" in str(told.value)
    assert "HF_HUB_OFFLINE" in str(told.value)


@pytest.mark.parametrize(("metric", "direction"), [("accuracy", "minimize"), ("loss", "maximize")])
def test_37_a_direction_that_contradicts_the_metric(metric: str, direction: str) -> None:
    scorer = TASK.scorer(metric)
    with pytest.raises(ConfigError, match=f"direction: {direction} contradicts .* write {scorer.direction}"):
        check_direction(scorer, direction)  # type: ignore[arg-type]
    assert check_direction(scorer, None) == check_direction(scorer, scorer.direction) == scorer.direction


def test_a_persons_own_metric(tmp_path: Path) -> None:
    path = tmp_path / "mistakes_made.py"
    path.write_text(OWN.format(direction='direction = "minimize"', result=COUNTED))
    scorer = TASK.scorer(str(path))
    values = scorer(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 0]))
    assert (scorer.name, scorer.direction) == ("mistakes_made", "minimize")
    assert values["mistakes_made"] == values["mistakes"] == 2
    assert (values["rows"], values["accuracy"]) == (4, 0.5)


def test_a_persons_own_metric_is_maximised_unless_it_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(OWN.format(direction="", result=COUNTED))
    assert TASK.scorer(str(tmp_path / "m.py")).direction == "maximize"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("import no_such_package", "cannot be imported: ModuleNotFoundError"),
        ("def score(predictions, references): return 1", "defines 0 subclasses of evaluate.Metric"),
        (OWN.format(direction='direction = "up"', result=COUNTED), "write 'maximize' or 'minimize'"),
        (OWN.format(direction="", result="1 / 0"), "'m' failed: ZeroDivisionError"),
        (OWN.format(direction="", result="{}"), "not a name and a number"),
    ],
)
def test_a_persons_metric_that_cannot_be_used_is_told_before_training(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(content)
    with pytest.raises(ConfigError) as told:
        TASK.scorer(str(tmp_path / "m.py"))
    assert says in str(told.value)


def test_a_metric_file_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "my_metric.py").write_text("")
    with pytest.raises(ConfigError) as told:
        TASK.scorer(str(tmp_path / "my_metrics.py"))
    assert str(tmp_path / "my_metrics.py") in str(told.value)
    assert "Did you mean 'my_metric.py'?" in str(told.value)
