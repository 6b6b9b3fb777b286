"""Class weights: rare classes weigh more in the training loss, so that every class has the same total weight."""

import copy
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpo.tasks.objective import Objective

if TYPE_CHECKING:
    import torch

T = TypeVar("T", bound=Objective)


def weighted(task: T, weights: NDArray[Any]) -> T:
    """Return a copy of the task with a loss of these class weights."""
    import torch

    other = copy.copy(task)
    other.class_weights = torch.from_numpy(weights.astype(np.float32))
    return other


def balanced_weights(labels: NDArray[Any], classes: int) -> NDArray[Any]:
    """Return n / (k · n_c) for class c of k (King & Zeng, 2001; scikit-learn's rule), [classes]: 1 on average.

    Labels below 0 are ignored. A class without labels has weight 0.
    """
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * np.maximum(counts, 1)), 0.0)


def total_weight(labels: "torch.Tensor", weights: "torch.Tensor | None") -> float:
    """Return the sum of the weights of `labels` (class numbers; below 0: ignored); without `weights` their number."""
    real = labels[labels >= 0]
    return len(real) if weights is None else float(weights.to(labels.device)[real].sum())
