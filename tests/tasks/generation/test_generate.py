"""The loss of generated tokens."""

import pytest
import torch

from hpo.tasks.generation.generate import token_loss
from hpo.tasks.registry import get_task


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_token_loss_equals_the_trainers(smoothing: float) -> None:
    from transformers.trainer_pt_utils import LabelSmoother

    torch.manual_seed(0)
    logits, labels = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5))
    labels[1, 3:] = labels[2, 1:] = -100
    expected = LabelSmoother(epsilon=smoothing)({"logits": logits}, labels)
    count = get_task("summarization").target_count(labels)
    assert count == 9
    assert float(token_loss(logits, labels, smoothing) / count) == pytest.approx(float(expected), rel=1e-5)
