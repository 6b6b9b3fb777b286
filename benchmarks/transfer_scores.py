"""Scores of frozen features that `rank_models.py` holds against the one that hpo ranks models by."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def nearest_neighbours(layers: Sequence[Floats], targets: Floats, examples: NDArray[np.int64], count: int = 5) -> float:
    """The share of the targets' variance that the mean of the nearest rows explains: by cosine over all layers."""
    likeness = np.zeros((len(targets), len(targets)))
    for states in layers:
        centred = states - states.mean(0)
        unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
        likeness += unit @ unit.T
    likeness[examples[:, None] == examples[None, :]] = -np.inf
    near = np.argpartition(-likeness, count, axis=1)[:, :count]
    predicted = targets[near].mean(1)
    return float(1 - ((targets - predicted) ** 2).sum() / ((targets - targets.mean(0)) ** 2).sum())


def log_maximum_evidence(states: Floats, targets: Floats) -> float:
    """LogME (You et al., 2021): the log evidence a row of a Bayesian linear model on frozen features, at its best.

    Each column of `targets` has a normal prior of precision alpha on the weights and noise of precision beta, both at
    the fixed point that maximises the evidence; the mean over the columns.
    """
    rows, width = states.shape
    left, singular, _ = np.linalg.svd(states, full_matrices=False)
    squares = singular**2
    found = []
    for column in targets.T:
        inside = (left.T @ column) ** 2
        outside = float(column @ column - inside.sum())
        alpha = beta = 1.0
        for _ in range(100):
            shrunk = alpha + beta * squares
            gamma = float((beta * squares / shrunk).sum())
            norm = float((beta**2 * squares * inside / shrunk**2).sum())
            residual = float((alpha**2 * inside / shrunk**2).sum()) + outside
            before, ratio = alpha / beta, (gamma / max(norm, 1e-12), (rows - gamma) / max(residual, 1e-12))
            alpha, beta = ratio
            if abs(alpha / beta - before) <= 1e-5 * before:
                break
        shrunk = alpha + beta * squares
        norm = float((beta**2 * squares * inside / shrunk**2).sum())
        residual = float((alpha**2 * inside / shrunk**2).sum()) + outside
        spread = float(np.log(shrunk).sum()) + (width - len(squares)) * np.log(alpha)
        evidence = width * np.log(alpha) + rows * np.log(beta / (2 * np.pi)) - beta * residual - alpha * norm - spread
        found.append(evidence / 2 / rows)
    return float(np.mean(found))


def h_score(states: Floats, targets: Floats) -> float:
    """H-score (Bao et al., 2019): how much of the features' covariance lies between classes, of one-hot `targets`.

    With the covariance shrunk as by Ledoit and Wolf (2004), which Ibrahim et al. (2021) found to be needed where rows
    are few against the width.
    """
    from sklearn.covariance import ledoit_wolf

    centred = states - states.mean(0)
    shrunk, _ = ledoit_wolf(centred, assume_centered=True)
    means = targets @ (targets.T @ centred / targets.sum(0)[:, None])
    return float(np.trace(np.linalg.solve(shrunk, means.T @ means / len(states))))
