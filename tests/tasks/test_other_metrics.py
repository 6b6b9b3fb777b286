"""Metrics of numbers, label sets, entities and answers equal those of the libraries that people compare with."""

import warnings
from typing import Any

import numpy as np
import pytest

from hpo.tasks.metrics.entities import EntityMetrics, entities
from hpo.tasks.metrics.multi_label import MultiLabelMetrics
from hpo.tasks.metrics.regression import RegressionMetrics
from hpo.tasks.metrics.squad import AnswerMetrics
from hpo.tasks.registry import get_task

TAGS = ("O", "B-place", "I-place", "B-person", "I-person", "I-group", "E-group", "S-group")


@pytest.mark.parametrize("seed", range(3))
def test_numbers_as_scipy_and_scikit_learn(seed: int) -> None:
    from scipy import stats
    from sklearn import metrics

    rng = np.random.default_rng(seed)
    true = rng.normal(size=200)
    said = np.round(true + rng.normal(size=200), 1)  # with ties
    found = RegressionMetrics(mean=1000.0, deviation=25.0).compute(predictions=said, references=true)
    in_units = (1000 + 25 * true, 1000 + 25 * said)
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


def test_numbers_that_say_nothing() -> None:
    metric = RegressionMetrics()
    assert metric.compute(predictions=[2.0, 2.0], references=[1.0, 3.0])["pearson"] == 0.0
    assert np.isnan(metric.compute(predictions=[np.nan, 2.0], references=[1.0, 3.0])["pearson"])


@pytest.mark.parametrize("seed", range(3))
def test_label_sets_as_scikit_learn(seed: int) -> None:
    from sklearn import metrics

    rng = np.random.default_rng(seed)
    true, said = (rng.random((60, 5)) < 0.3 for _ in range(2))
    true[:, 4] = said[:, 4] = False  # a class that nobody has
    found = MultiLabelMetrics().compute(predictions=said.astype(int), references=true.astype(int))
    expected = {"accuracy": metrics.accuracy_score(true, said)}
    for name in ("f1", "precision", "recall"):
        for average in ("micro", "macro"):
            score = getattr(metrics, f"{name}_score")
            expected[f"{name}_{average}"] = score(true, said, average=average, zero_division=0)
    assert found == pytest.approx(expected)


def random_tags(rng: np.random.Generator) -> list[list[str]]:
    return [[str(tag) for tag in rng.choice(TAGS, rng.integers(1, 12))] for _ in range(80)]


@pytest.mark.parametrize("seed", range(3))
def test_entities_as_seqeval(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seqeval = pytest.importorskip("seqeval.metrics")
    rng = np.random.default_rng(seed)
    true = random_tags(rng)
    said = [[tag if rng.random() < 0.7 else str(rng.choice(TAGS)) for tag in row] for row in true]
    for row in true:
        assert entities(row) == seqeval.sequence_labeling.get_entities(row)
    numbered: list[Any] = [[tuple(TAGS.index(tag) for tag in row) for row in rows] for rows in (said, true)]
    assert EntityMetrics(TAGS).compute(predictions=numbered[0], references=numbered[1]) == pytest.approx(
        {
            "f1": seqeval.f1_score(true, said),
            "precision": seqeval.precision_score(true, said),
            "recall": seqeval.recall_score(true, said),
            "f1_macro": seqeval.f1_score(true, said, average="macro"),
            "accuracy": seqeval.accuracy_score(true, said),
        }
    )


def test_parts_of_speech_are_entities_of_one_word() -> None:
    assert entities(["NOUN", "NOUN", "O"]) == [("NOUN", 0, 0), ("NOUN", 1, 1)]


# What SQuAD 1.1's official script says of each; the first three are the examples of `evaluate`'s page of it.
SQUAD: list[tuple[str, tuple[str, ...], float, float]] = [
    ("1976", ("1976",), 1, 1),
    ("1999", ("1976",), 0, 0),
    ("Beyonce", ("Beyoncé and Bruno Mars",), 0, 0),
    ("The  Dot.", ("the dot",), 1, 1),
    ("a web-based campaign", ("campaign", "web based"), 0, 2 / 3),  # webbased is one word
    ("dot dot", ("the dot logo",), 0, 0.5),
    ("the U.S. and Canada", ("US", "Canada and the US"), 0, 1),
    ("10,000 men", ("10000 men of the U.S.", "ten thousand"), 0, 2 / 3),
    ("", ("dot",), 0, 0),
    ("...", ("the",), 1, 0),  # nothing is left of either
    ("2001–02", ("2001-02",), 0, 0),  # only ASCII punctuation is left out
]


@pytest.mark.parametrize(("said", "right", "exact", "f1"), SQUAD)
def test_answers_as_the_official_script(said: str, right: tuple[str, ...], exact: float, f1: float) -> None:
    found = AnswerMetrics().compute(predictions=[said], references=[right])
    assert found == pytest.approx({"exact_match": exact, "f1": f1})


def test_answers_count_alike() -> None:
    said, right, exact, f1 = zip(*SQUAD, strict=True)
    found = AnswerMetrics().compute(predictions=said, references=right)
    assert found == pytest.approx({"exact_match": np.mean(exact), "f1": np.mean(f1)})


def test_metrics_of_a_person_get_names_and_units(tmp_path: Any) -> None:
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

    from hpo.tasks.metrics.scorer import one_each
    from hpo.tasks.task_data import TaskData

    rows = Dataset.from_dict({"text": [["a"]], "label": [[0]]})
    data = TaskData(rows, rows, None, ("O", "B-place"), {}, (), "")
    scorer = get_task("token-classification").scorer(str(file), data)
    assert scorer(one_each([[1, 0]]), one_each([[0, 0]]))["mine"] == 1.0
    numbers = get_task("text-regression").scorer("mae", replace(data, scale=(100.0, 10.0)))
    assert numbers(np.array([0.0, 1.0]), np.array([0.5, 1.0]))["mae"] == pytest.approx(2.5)
