"""Entity metrics equal seqeval's."""

import warnings
from typing import Any

import numpy as np
import pytest

from hpo.tasks.metrics.entities import EntityMetrics, entities

TAGS = ("O", "B-place", "I-place", "B-person", "I-person", "I-group", "E-group", "S-group")


def random_tags(rng: np.random.Generator) -> list[list[str]]:
    return [[str(tag) for tag in rng.choice(TAGS, rng.integers(1, 12))] for _ in range(80)]


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_seqeval(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seqeval = pytest.importorskip("seqeval.metrics")
    rng = np.random.default_rng(seed)
    true = random_tags(rng)
    predicted = [[tag if rng.random() < 0.7 else str(rng.choice(TAGS)) for tag in row] for row in true]
    for row in true:
        assert entities(row) == seqeval.sequence_labeling.get_entities(row)
    numbered: list[Any] = [[tuple(TAGS.index(tag) for tag in row) for row in rows] for rows in (predicted, true)]
    assert EntityMetrics(TAGS).compute(predictions=numbered[0], references=numbered[1]) == pytest.approx(
        {
            "f1": seqeval.f1_score(true, predicted),
            "precision": seqeval.precision_score(true, predicted),
            "recall": seqeval.recall_score(true, predicted),
            "f1_macro": seqeval.f1_score(true, predicted, average="macro"),
            "accuracy": seqeval.accuracy_score(true, predicted),
        }
    )


def test_tags_without_prefix_are_entities_of_one_word() -> None:
    assert entities(["NOUN", "NOUN", "O"]) == [("NOUN", 0, 0), ("NOUN", 1, 1)]


@pytest.mark.parametrize(
    ("tags", "same"),
    [
        (["B-x", "I-x", "L-x", "U-x", "O", "B-x", "O"], ["B-x", "I-x", "E-x", "S-x", "O", "B-x", "O"]),
        (["B-x", "M-x", "E-x", "W-x", "S-x"], ["B-x", "I-x", "E-x", "S-x", "S-x"]),
    ],
)
def test_tags_of_other_schemes_are_the_same_entities(tags: list[str], same: list[str]) -> None:
    assert entities(tags) == entities(same)


def test_a_part_of_an_entity_is_no_hit_in_any_scheme() -> None:
    for true, predicted in (
        (("B-x", "I-x", "L-x", "O"), ("B-x", "I-x", "O", "O")),
        (("B-x", "M-x", "M-x", "E-x"), ("B-x", "M-x", "O", "E-x")),
    ):
        found = EntityMetrics().compute(predictions=[predicted], references=[true])
        assert found is not None and found["f1"] == 0
