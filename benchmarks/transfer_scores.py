"""Transferability scores that `rank_models.py` compares with the one that hpo ranks models by."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def nearest_neighbors(layers: Sequence[Floats], targets: Floats, inputs: NDArray[np.int64], count: int = 5) -> float:
    """Return the R² of the mean of the nearest rows' targets, by cosine similarity summed over all layers."""
    similarity = np.zeros((len(targets), len(targets)))
    for features in layers:
        centered = features - features.mean(0)
        unit = centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12)
        similarity += unit @ unit.T
    similarity[inputs[:, None] == inputs[None, :]] = -np.inf
    near = np.argpartition(-similarity, count, axis=1)[:, :count]
    predicted = targets[near].mean(1)
    return float(1 - ((targets - predicted) ** 2).sum() / ((targets - targets.mean(0)) ** 2).sum())


def log_maximum_evidence(features: Floats, targets: Floats) -> float:
    """Return LogME (You et al., 2021): the maximum log evidence a row of a Bayesian linear model on frozen features.

    Each column of `targets` has a normal prior of precision alpha on the weights and noise of precision beta, both at
    the fixed point that maximizes the evidence; the mean over the columns.
    """
    rows, width = features.shape
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
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


def h_score(features: Floats, targets: Floats) -> float:
    """Return the H-score (Bao et al., 2019): how much of the features' covariance is between the one-hot `targets`.

    The covariance is shrunk as by Ledoit and Wolf (2004), which Ibrahim et al. (2021) found necessary where there are
    few rows compared with the width.
    """
    from sklearn.covariance import ledoit_wolf

    centered = features - features.mean(0)
    shrunk, _ = ledoit_wolf(centered, assume_centered=True)
    means = targets @ (targets.T @ centered / targets.sum(0)[:, None])
    return float(np.trace(np.linalg.solve(shrunk, means.T @ means / len(features))))
