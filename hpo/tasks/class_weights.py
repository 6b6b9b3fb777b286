"""Class weights: rare classes count for more in the training loss, so that every class weighs the same in all."""

import copy
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpo.tasks.base import Task

if TYPE_CHECKING:
    import torch

T = TypeVar("T", bound=Task)


def weighted(task: T, weights: NDArray[Any]) -> T:
    """The same task with a loss in which classes weigh so much."""
    import torch

    other = copy.copy(task)
    other.class_weights = torch.from_numpy(weights.astype(np.float32))
    return other


def balanced_weights(labels: NDArray[Any], classes: int) -> NDArray[Any]:
    """n / (k · n_c) for class c of k (King & Zeng, 2001; scikit-learn's rule), of shape [classes]: 1 on average.

    Labels below 0 do not count. A class that no label names weighs 0.
    """
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * np.maximum(counts, 1)), 0.0)


def total_weight(labels: "torch.Tensor", weights: "torch.Tensor | None") -> float:
    """What the loss of `labels` (class numbers, below 0: none) is divided by: their weights' sum, or their number."""
    real = labels[labels >= 0]
    return len(real) if weights is None else float(weights.to(labels.device)[real].sum())
