"""Scores pre-trained models before training by how well their frozen features predict the labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FOLDS = 5
# Ridge penalties for standardized features, multiplied by the number of rows.
PENALTIES = 10.0 ** np.arange(-4, 3)


def transferability(layers: Sequence[NDArray[np.float32]], labels: NDArray[Any], inputs: NDArray[np.int64]) -> float:
    """Return the score that models are ranked by, higher is better: the `probe` of the mean over all layers.

    Where layers differ in width (convolutions), of the last one. `inputs` is the input of each row.
    """
    same_shape = all(features.shape == layers[-1].shape for features in layers)
    features = np.mean(layers, axis=0) if same_shape else layers[-1]
    return probe(features.astype(np.float64), target_columns(labels), inputs)


def target_columns(labels: NDArray[Any]) -> Floats:
    """Return labels as columns to predict: class numbers one-hot, several labels or numbers as they are."""
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        return (labels[:, None] == np.unique(labels)).astype(np.float64)
    return np.asarray(labels, np.float64).reshape(len(labels), -1)


def probe(features: Floats, targets: Floats, inputs: NDArray[np.int64]) -> float:
    """Return the cross-validated R² of a ridge regression from `features` [n, width] to `targets` [n, columns].

    At most 1; 0 where features predict nothing. The n rows are split into folds by `inputs`, so that the tokens of one
    text share a fold. The penalty is the best of `PENALTIES`.
    """
    fold = np.random.default_rng(0).permutation(int(inputs.max()) + 1)[inputs] % FOLDS
    residual, total = np.zeros(len(PENALTIES)), 0.0
    for held_out in range(FOLDS):
        train, test = fold != held_out, fold == held_out
        if not test.any() or not train.any():
            continue
        mean, offset = features[train].mean(0), targets[train].mean(0)
        deviation = np.maximum(features[train].std(0), 1e-6)
        x_train, y_train = (features[train] - mean) / deviation, targets[train] - offset
        x_test, y_test = (features[test] - mean) / deviation, targets[test] - offset
        total += float((y_test**2).sum())
        for index, predicted in enumerate(_ridge(x_train, y_train, x_test)):
            residual[index] += float(((y_test - predicted) ** 2).sum())
    return float(1 - residual.min() / total) if total else 0.0


def _ridge(x_train: Floats, y_train: Floats, x_test: Floats) -> list[Floats]:
    """Return ridge regression's predictions with each penalty, from one decomposition of the smaller Gram matrix."""
    rows, width = x_train.shape
    penalties = PENALTIES * rows
    if width <= rows:
        values, vectors = np.linalg.eigh(x_train.T @ x_train)
        right, left = vectors.T @ (x_train.T @ y_train), x_test @ vectors
    else:
        values, vectors = np.linalg.eigh(x_train @ x_train.T)
        right, left = vectors.T @ y_train, (x_test @ x_train.T) @ vectors
    return [left @ (right / (np.maximum(values, 0) + penalty)[:, None]) for penalty in penalties]
