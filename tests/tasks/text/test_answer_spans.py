"""The best span of a window."""

import pytest


def test_best_span_is_the_best_of_all_pairs() -> None:
    import torch

    from hpo.tasks.text.answer_spans import LONGEST_ANSWER, best_spans

    torch.manual_seed(0)
    logits = torch.randn(4, 90, 2)
    of_context = torch.zeros(4, 90, dtype=torch.bool)
    of_context[:, 5:85] = True
    for row, (score, first, last) in enumerate(best_spans(logits, of_context)):
        pairs = {
            (float(logits[row, i, 0] + logits[row, j, 1]), i, j)
            for i in range(5, 85)
            for j in range(i, min(85, i + LONGEST_ANSWER))
        }
        assert (pytest.approx(score), first, last) == max(pairs)
