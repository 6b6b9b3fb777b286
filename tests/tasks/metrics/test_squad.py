"""Exact match and F1 of answers equal SQuAD's official script."""

import numpy as np
import pytest

from hpo.tasks.metrics.squad import AnswerMetrics

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


@pytest.mark.parametrize(("predicted", "references", "exact", "f1"), SQUAD)
def test_scores_equal_the_official_script(predicted: str, references: tuple[str, ...], exact: float, f1: float) -> None:
    found = AnswerMetrics().compute(predictions=[predicted], references=[references])
    assert found == pytest.approx({"exact_match": exact, "f1": f1})


def test_scores_are_averaged_over_answers() -> None:
    predicted, references, exact, f1 = zip(*SQUAD, strict=True)
    found = AnswerMetrics().compute(predictions=predicted, references=references)
    assert found == pytest.approx({"exact_match": np.mean(exact), "f1": np.mean(f1)})
