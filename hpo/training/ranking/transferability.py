"""How well frozen features tell the labels: a score of a pre-trained model before anything is trained."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FOLDS = 5
# Ridge penalties, in units of the features' own variance a dimension times the rows.
PENALTIES = 10.0 ** np.arange(-4, 3)


def transferability(layers: Sequence[NDArray[np.float32]], labels: NDArray[Any], examples: NDArray[np.int64]) -> float:
    """The score that models are ranked by, higher is better: the `probe` of the mean over all layers.

    Where layers differ in width (convolutions), of the last one.
    """
    alike = all(states.shape == layers[-1].shape for states in layers)
    states = np.mean(layers, axis=0) if alike else layers[-1]
    return probe(states.astype(np.float64), target_columns(labels), examples)


def target_columns(labels: NDArray[Any]) -> Floats:
    """Labels as columns to predict: one a class for class numbers, as they are for several classes or numbers."""
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        return (labels[:, None] == np.unique(labels)).astype(np.float64)
    return np.asarray(labels, np.float64).reshape(len(labels), -1)


def probe(states: Floats, targets: Floats, examples: NDArray[np.int64]) -> float:
    """The share of the targets' variance that a ridge regression on `states` explains in rows that it has not seen.

    At most 1; 0 where they tell nothing. `states` is [n, width], `targets` [n, columns]; the n rows are split by
    `examples` into folds, so that tokens of one text stay together. The penalty is the best of a few.
    """
    fold = np.random.default_rng(0).permutation(int(examples.max()) + 1)[examples] % FOLDS
    missed, spread = np.zeros(len(PENALTIES)), 0.0
    for held in range(FOLDS):
        train, test = fold != held, fold == held
        if not test.any() or not train.any():
            continue
        mean, middle = states[train].mean(0), targets[train].mean(0)
        deviation = np.maximum(states[train].std(0), 1e-6)
        known, seen = (states[train] - mean) / deviation, targets[train] - middle
        asked, wanted = (states[test] - mean) / deviation, targets[test] - middle
        spread += float((wanted**2).sum())
        for number, predicted in enumerate(_ridge(known, seen, asked)):
            missed[number] += float(((wanted - predicted) ** 2).sum())
    return float(1 - missed.min() / spread) if spread else 0.0


def _ridge(known: Floats, seen: Floats, asked: Floats) -> list[Floats]:
    """What ridge regressions of each penalty predict: by the smaller of the two Gram matrices, decomposed once."""
    rows, width = known.shape
    penalties = PENALTIES * rows
    if width <= rows:
        values, vectors = np.linalg.eigh(known.T @ known)
        right, left = vectors.T @ (known.T @ seen), asked @ vectors
    else:
        values, vectors = np.linalg.eigh(known @ known.T)
        right, left = vectors.T @ seen, (asked @ known.T) @ vectors
    return [left @ (right / (np.maximum(values, 0) + penalty)[:, None]) for penalty in penalties]
