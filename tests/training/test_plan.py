"""The plan of a run: its steps, rungs and frozen layers."""

from collections.abc import Callable

import pytest

from hpo.training.plan import TrainingPlan

Plan = Callable[..., TrainingPlan]


@pytest.mark.parametrize(
    ("batch_size", "rungs", "expected"),
    [
        (8, 3, [2, 4, 6, 8, 10, 12]),  # 6 steps in each of 2 epochs
        (10, 2, [3, 5, 8, 10]),  # 5 steps: the last rung of an epoch is at its end
        (48, 2, [1, 1, 2, 2]),  # more rungs than steps
    ],
)
def test_rungs_are_evenly_spaced_in_each_epoch(batch_size: int, rungs: int, expected: list[int], plan: Plan) -> None:
    assert plan(epochs=2, batch_size=batch_size, of={"rungs_per_epoch": rungs}).rung_steps() == expected


def test_epochs_to_train_cut_the_rungs(plan: Plan) -> None:
    made = plan(epochs=4, of={"rungs_per_epoch": 2, "epochs_to_train": 1.5})
    assert made.rung_steps() == [3, 6, 9]
    assert plan(epochs=4, of={"epochs_to_train": 0.1}).rung_steps() == [6]  # at least one rung
    assert plan(epochs=4, of={"epochs_to_train": 9.0}).rung_steps() == [6, 12, 18, 24]


def test_frozen_share_is_rounded_to_layers(plan: Plan) -> None:
    assert plan(layers=3, frozen_share=0.7).frozen_layers == 2
    assert plan(layers=3).frozen_layers == 0
