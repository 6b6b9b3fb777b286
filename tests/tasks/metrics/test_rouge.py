"""ROUGE equals the reference package."""

import numpy as np
import pytest

from hpo.tasks.metrics.rouge import KINDS, RougeMetrics

SAID = ["The cats sat on the mat.", "a dog", "", "completely different words here, and many"]


RIGHT = [("A cat sat on a mat.", "The cat was sitting on the mat"), ("a dog",), ("nothing",), ("other words",)]


def test_scores_equal_the_reference_package() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(KINDS), use_stemmer=True)
    each = [scorer.score_multi(references, predicted) for predicted, references in zip(SAID, RIGHT, strict=True)]
    expected = {kind: np.mean([one[kind].fmeasure for one in each]) for kind in KINDS}
    assert RougeMetrics().compute(predictions=SAID, references=RIGHT) == pytest.approx(expected)
    assert expected["rougeL"] > 0.3
