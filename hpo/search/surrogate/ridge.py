"""Linear regression that is careful with few observations."""

import numpy as np

Array = np.ndarray

STRENGTH = 0.3  # of the pull towards no slope, in observations


class Ridge:
    """Ridge regression of values (n,) at points (n, coordinates), around their mean (Hoerl and Kennard, 1970)."""

    def __init__(self, points: Array, values: Array) -> None:
        self.centre = float(values.mean()) if len(values) else 0.0
        self._middle = points.mean(axis=0) if len(values) else np.zeros(points.shape[1])
        away = points - self._middle
        pulled = away.T @ away + STRENGTH * np.eye(points.shape[1])
        self._slopes = np.linalg.solve(pulled, away.T @ (values - self.centre))

    def at(self, points: Array) -> Array:
        """The values to expect at `points`; 0 where nothing was observed."""
        expected: Array = self.centre + (points - self._middle) @ self._slopes
        return expected
