"""Weighted losses equal torch's weighted means, however a batch is split, with scikit-learn's weights."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from hpo.errors import ConfigError
from hpo.tasks.class_weights import balanced_weights
from hpo.tasks.registry import TASKS

LABELS = np.array([0] * 12 + [1] * 3 + [3])  # class 2 is not there


def weights() -> torch.Tensor:
    present = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=LABELS)
    return torch.tensor([present[0], present[1], 0, present[2]], dtype=torch.float32)


def in_parts(task: Any, logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> float:
    """The loss of a batch, added up over three micro-batches."""
    parts = [slice(0, 1), slice(1, 3), slice(3, None)]
    total = sum(task.loss(logits[part], labels[part], smoothing) for part in parts)
    return float(total) / sum(task.target_count(labels[part]) for part in parts)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_labels(smoothing: float) -> None:
    assert balanced_weights(np.append(LABELS, -100), 4) == pytest.approx(weights().numpy())
    plain = TASKS["text-classification"]
    task = plain.with_class_weights(LABELS, 4)
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 3, 3, 0, 1])
    expected = cross_entropy(logits, labels, weights(), label_smoothing=smoothing)
    assert in_parts(task, logits, labels, smoothing) == pytest.approx(float(expected), rel=1e-5)
    assert in_parts(plain, logits, labels, 0.0) == pytest.approx(float(cross_entropy(logits, labels)), rel=1e-5)


def test_tags() -> None:
    task = TASKS["token-classification"].with_class_weights(np.append(LABELS, [-100, -100]), 4)
    logits, labels = torch.randn(6, 5, 4), torch.tensor([0, 1, 3, -100, 1]).repeat(6, 1)
    expected = cross_entropy(logits.transpose(1, 2), labels, weights(), ignore_index=-100)
    assert in_parts(task, logits, labels, 0.0) == pytest.approx(float(expected), rel=1e-5)


def test_label_sets() -> None:
    rows = np.array([[1, 0], [0, 0], [0, 0], [0, 1]], dtype=np.int8)
    task = TASKS["multi-label-classification"].with_class_weights(rows, 2)
    logits, labels = torch.randn(4, 2), torch.from_numpy(rows)
    weight = torch.where(labels == 1, 4 / 2, 4 / 6)  # one row has each class, three have not
    losses = binary_cross_entropy_with_logits(logits, labels.float(), weight, reduction="sum")
    assert in_parts(task, logits, labels, 0.0) == pytest.approx(float(losses / weight.sum()), rel=1e-5)


def test_task_without_classes_raises() -> None:
    for task in TASKS.values():
        if not task.supports_class_weights:
            with pytest.raises(ConfigError, match=f"{task.name} has none"):
                task.with_class_weights(LABELS, 4)
