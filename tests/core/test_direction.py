"""The direction of an objective."""

import pytest

from hpo.core.direction import Direction, higher_is_better, loss_sign


@pytest.mark.parametrize(("direction", "best"), [("maximize", 3.0), ("minimize", -1.0)])
def test_losses_order_values_from_best_to_worst(direction: Direction, best: float) -> None:
    values = [2.0, 3.0, -1.0]
    assert min(values, key=lambda value: loss_sign(direction) * value) == best
    assert (max if higher_is_better(direction) else min)(values) == best
