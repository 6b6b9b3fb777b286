"""Parameters of a search space: nearest values, steps and conditions."""

from typing import Any

import pytest

from hpo.config.search_space import Categorical, Fixed, Float, Int
from hpo.config.space_parser import parse_search_space


@pytest.mark.parametrize(
    ("written", "top", "note"),
    [
        (
            {"low": 0, "high": 0.5, "step": 0.2},
            0.4,
            "dropout: step 0.2 does not divide the range: the top is 0.4, not 0.5",
        ),
        ({"low": 0, "high": 0.3, "step": 0.1}, 0.3, None),  # 3 × 0.1 is above 0.3 in binary
        ({"low": 0.1, "high": 0.35, "step": 0.1}, 0.3, "the top is 0.3, not 0.35"),
    ],
)
def test_step_that_does_not_divide_the_range_is_noted(written: dict[str, Any], top: float, note: str | None) -> None:
    space = parse_search_space({"dropout": written})
    assert space.parameters["dropout"].effective_high == top  # type: ignore[union-attr]
    assert (note is None and space.notes == []) or note in space.notes[0]
    whole = parse_search_space({"epochs": {"low": 1, "high": 6, "step": 2}})
    assert whole.parameters["epochs"].effective_high == 5  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("parameter", "value", "nearest"),
    [
        (Float(low=0, high=0.3, step=0.1), 0.26, 0.3),
        (Float(low=0, high=0.3, step=0.1), 9, 0.3),
        (Float(low=1e-5, high=1e-3), 0, 1e-5),
        (Int(low=1, high=6, step=2), 6, 5),
        (Int(low=2, high=6), 3, 3),
        (Categorical(choices=(8, 16, 64)), 30, 16),
        (Categorical(choices=("linear", "cosine")), "constant", "linear"),
        (Categorical(choices=(None, 2)), None, None),
        (Fixed(value=3), 5, 3),
    ],
)
def test_nearest_value_of_a_parameter(parameter: Any, value: Any, nearest: Any) -> None:
    assert parameter.nearest(value) == nearest


def test_condition_requires_one_value_of_each_named_parameter() -> None:
    space = parse_search_space(
        {
            "lr_scheduler": ["linear", "cosine"],
            "batch_size": [8, 16],
            "warmup_ratio": {"low": 0, "high": 0.1, "when": {"lr_scheduler": "cosine", "batch_size": [8]}},
        }
    )
    assert space.conditional
    assert space.is_active("warmup_ratio", {"lr_scheduler": "cosine", "batch_size": 8})
    assert not space.is_active("warmup_ratio", {"lr_scheduler": "cosine", "batch_size": 16})
    assert not space.is_active("warmup_ratio", {"lr_scheduler": "cosine"})
    assert not parse_search_space({"lr_scheduler": ["linear", "cosine"]}).conditional
