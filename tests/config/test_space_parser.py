"""Parsing of search spaces: each form, and the message for each mistake."""

from typing import Any

import pytest

from hpo.config.search_space import Categorical, Fixed, Float, Int
from hpo.config.space_parser import parse_search_space
from hpo.errors import ConfigError

SCHEDULERS = {"lr_scheduler": ["linear", "cosine"]}


def test_each_form_is_parsed() -> None:
    space = parse_search_space(
        {
            "learning_rate": {"low": 1e-6, "high": 5e-4, "log": True},
            "epochs": {"low": 2, "high": 6},
            "batch_size": [8, "16", 32.0],
            "frozen_layers": {"share": [0, 1]},
            "weight_decay": "1e-2",
            "lr_scheduler": {"choices": ["linear", "cosine"]},
            "warmup_ratio": {"low": 0, "high": 0.2, "when": {"lr_scheduler": "linear"}},
            "dropout": None,
        }
    )
    assert space.parameters == {
        "learning_rate": Float(low=1e-6, high=5e-4, log=True),
        "epochs": Int(low=2, high=6),
        "batch_size": Categorical(choices=(8, 16, 32)),
        "frozen_share": Float(low=0, high=1),
        "weight_decay": Fixed(value=0.01),
        "lr_scheduler": Categorical(choices=("linear", "cosine")),
        "warmup_ratio": Float(low=0, high=0.2, when={"lr_scheduler": ("linear",)}),
        "dropout": Fixed(value=None),
    }
    assert parse_search_space(space.to_dict()) == space
    assert space.notes == []


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"learning_rate": 0}, "learning_rate: 0 is not allowed: must be greater than 0"),
        ({"learning_rate": {"low": 0, "high": 1e-3}}, "learning_rate: 0 is not allowed"),
        ({"learning_rate": [1e-3, -1e-3]}, "learning_rate: -0.001 is not allowed"),
        ({"learning_rate": float("nan")}, "learning_rate: nan is not allowed: must be a finite number"),
        ({"learning_rate": {"low": 1e-5, "high": float("inf")}}, "learning_rate: inf is not allowed"),
        ({"learning_rate": [float("nan")]}, "learning_rate: nan is not allowed"),
        ({"learning_rate": {"low": 1e-2, "high": 1e-3}}, "learning_rate: low 0.01 is above high 0.001"),
        ({"weight_decay": {"low": 0, "high": 0.1, "log": True}}, "weight_decay: a log scale needs low > 0"),
        ({"learning_rate": "fast"}, "learning_rate: fast is not allowed: must be a number"),
        ({"batch_size": 0}, "batch_size: 0 is not allowed: must be greater than or equal to 1"),
        ({"batch_size": [8, 2.5]}, "batch_size: 2.5 is not allowed: must be an integer"),
        ({"batch_size": {"low": 2.5, "high": 8}}, "batch_size: 2.5 is not allowed: must be an integer"),
        ({"batch_size": True}, "batch_size: True is not allowed"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps: no such parameter"),
        ({"epochs": 0}, "epochs: 0 is not allowed"),
        ({"lora_r": [4, 8]}, "lora_r: used only with peft: lora"),
        ({"peft": "none", "lora_r": 4}, "lora_r: used only with peft: lora"),
        ({"peft": "qlora"}, "peft: qlora is not allowed"),
        ({"epochs": {"low": -1, "high": 3}}, "epochs: -1 is not allowed"),
        ({"weight_decay": -0.1}, "weight_decay: -0.1 is not allowed: must be greater than or equal to 0"),
        ({"dropout": 1}, "dropout: 1 is not allowed: must be less than 1"),
        ({"lr_scheduler": ["linear", "cosin"]}, "lr_scheduler: cosin is not allowed: must be 'linear', 'cosine'"),
        ({"epochs": {"low": 1, "high": 4, "step": 0}}, "epochs: step 0 must be above 0"),
        ({"epochs": {"low": 1, "high": 4, "step": 1, "log": True}}, "epochs: a log scale has no step"),
        ({"learning_rat": 1e-3}, "learning_rat: no such parameter. Did you mean 'learning_rate'?"),
        ({"learning_rate": {"low": 1e-5, "high": 1e-3, "logg": True}}, "no such key 'logg'. Did you mean 'log'?"),
        ({"learning_rate": {"low": 1e-5}}, "learning_rate: write {low: …, high: …}, a list of choices, or one value"),
        ({"model": ["a"]}, "model: the candidates are listed under `models`"),
        ({"batch_size": []}, "batch_size.choices: must hold at least one value"),
        ({"batch_size": [8, 8.0]}, "batch_size: a choice is given twice"),
        ({"batch_size": [[8]]}, "batch_size: [8] is not a single value"),
        ({"frozen_layers": {"share": [0, 2]}}, "frozen_layers: 2 is not allowed: must be less than or equal to 1"),
        ({"frozen_layers": {"share": 0.5}}, "frozen_layers: a share is written {share: [low, high]}"),
        ({"dropout": {"share": [0, 1]}}, "dropout: only frozen_layers can be given as a share"),
        ({"dropout": {"value": 0.1, "when": "linear"}}, "dropout.when: must hold keys with values"),
        (
            {**SCHEDULERS, "dropout": {"value": 0.1, "when": {"lr_schedule": "linear"}}},
            "dropout.when.lr_schedule: the search space has no 'lr_schedule'. Did you mean 'lr_scheduler'?",
        ),
        (
            {"dropout": {"value": 0.1, "when": {"lr_scheduler": "linear"}}, **SCHEDULERS},
            "dropout.when.lr_scheduler: 'lr_scheduler' must be above 'dropout'",
        ),
        (
            {**SCHEDULERS, "dropout": {"value": 0.1, "when": {"lr_scheduler": ["linear", "constant"]}}},
            "'lr_scheduler' is never constant in this search space",
        ),
        (
            {"frozen_layers": {"share": [0, 1]}, "dropout": {"value": 0.1, "when": {"frozen_layers": 0}}},
            "'frozen_layers' is a range of real numbers",
        ),
    ],
)
def test_error_names_the_parameter_and_what_is_allowed(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_search_space(space)
    assert str(caught.value).startswith("search_space.")
    assert message in str(caught.value)
