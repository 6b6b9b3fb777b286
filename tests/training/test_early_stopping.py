"""Early stopping: no improvement over the best value before, in both directions."""

import pytest

from hpo.core.direction import Direction
from hpo.training.early_stopping import should_stop_early


@pytest.mark.parametrize(
    ("values", "direction", "patience", "expected"),
    [
        ([0.5, 0.7, 0.6, 0.7], "maximize", 2, True),  # equal to the best is no improvement
        ([0.5, 0.7, 0.6, 0.8], "maximize", 2, False),
        ([0.5, 0.4, 0.6, 0.5], "minimize", 2, True),
        ([0.5, 0.4, 0.6, 0.3], "minimize", 2, False),
        ([0.5, 0.4], "maximize", 2, False),  # fewer rungs than the patience allows
        ([0.5, 0.4, 0.3], "maximize", None, False),
    ],
)
def test_stops_without_improvement(
    values: list[float], direction: Direction, patience: int | None, expected: bool
) -> None:
    assert should_stop_early(values, direction, patience) is expected
