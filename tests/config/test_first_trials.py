"""First trials: the models that one applies to, and errors in one."""

from typing import Any

import pytest

from hpo.config.first_trials import ModelTraits, check_first_trial, entry_params, model_filter
from hpo.errors import ConfigError

BERT = ModelTraits(layers=12, model_type="bert", params=110_000_000)


@pytest.mark.parametrize(
    ("when", "matches"),
    [
        (None, True),
        ({}, True),
        ({"model_type": "bert"}, True),
        ({"model_type": ["roberta", "bert"]}, True),
        ({"model_type": "roberta"}, False),
        ({"min_params": 110e6, "max_params": 110e6}, True),
        ({"min_params": 111e6}, False),
        ({"model_type": "bert", "max_params": 50e6}, False),
    ],
)
def test_filter_matches_type_and_size(when: dict[str, Any] | None, matches: bool) -> None:
    entry = {"learning_rate": 1e-3} if when is None else {"learning_rate": 1e-3, "when": when}
    assert model_filter(entry).matches(BERT) == matches
    assert entry_params(entry) == {"learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"when": {"model": "bert"}}, r"entry\.when\.model: no such key.*'model_type'"),
        ({"lerning_rate": 1}, r"entry\.lerning_rate: no such key.*'learning_rate'"),
        ({"epochs": 0}, r"entry\.epochs: must be greater than or equal to 1"),
    ],
)
def test_error_in_an_entry_names_its_key(entry: dict[str, Any], message: str) -> None:
    check_first_trial({"epochs": 1, "when": {"min_params": 1}}, "entry", "org/a")
    with pytest.raises(ConfigError, match=message):
        check_first_trial(entry, "entry", "org/a")
