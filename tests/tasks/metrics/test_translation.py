"""BLEU and chrF equal sacrebleu."""

import pytest

from hpo.tasks.metrics.translation import TranslationMetrics

SAID = ["The cats sat on the mat.", "a dog", "", "completely different words here, and many"]


RIGHT = [("A cat sat on a mat.", "The cat was sitting on the mat"), ("a dog",), ("nothing",), ("other words",)]


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [3, 0, 0, 1]])  # as they are, and as a bootstrap draws them
def test_scores_equal_sacrebleu(rows: list[int]) -> None:
    import sacrebleu

    predicted, references = [SAID[row] for row in rows], [RIGHT[row] for row in rows]
    streams = [[texts[index] if index < len(texts) else None for texts in references] for index in range(2)]
    expected = {
        "bleu": sacrebleu.corpus_bleu(predicted, streams).score,
        "chrf": sacrebleu.corpus_chrf(predicted, streams).score,
    }
    assert TranslationMetrics().compute(predictions=predicted, references=references) == pytest.approx(expected)
    assert expected["chrf"] > 10
