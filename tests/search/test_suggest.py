"""Sampled configurations of a search space."""

from typing import Any

import optuna

from hpo.config.load import load_config
from hpo.config.trial_params import TrialParams
from hpo.search.factory import build_sampler
from hpo.search.suggest import suggest

SPACE: dict[str, Any] = {
    "learning_rate": {"low": 1e-6, "high": 1e-3, "log": True},
    "batch_size": [16, 32],
    "epochs": {"low": 2, "high": 6, "step": 3},
    "frozen_layers": {"share": [0, 1]},
    "dropout": {"low": 0, "high": 0.3, "step": 0.1},
    "lr_scheduler": ["linear", "cosine"],
    "warmup_ratio": {"low": 0, "high": 0.2, "when": {"lr_scheduler": "cosine"}},
    "weight_decay": 0.05,
}


def test_suggested_parameters_are_in_the_search_space() -> None:
    config = load_config({"name": "s", "data": "d", "models": ["org/a", "org/b"], "search_space": SPACE})
    study = optuna.create_study(sampler=build_sampler({}, config.search_space.conditional, seed=0))
    found = []
    for _ in range(60):
        trial = study.ask()
        params = suggest(trial, config.search_space, config.labels)
        found.append(params)
        assert isinstance(params, TrialParams)
        assert 1e-6 <= params.learning_rate <= 1e-3
        assert params.weight_decay == 0.05 and "weight_decay" not in trial.params
        assert ("warmup_ratio" in trial.params) == (params.lr_scheduler == "cosine")
        assert params.lr_scheduler == "cosine" or params.warmup_ratio == 0.1  # the default
        study.tell(trial, params.learning_rate)
    assert {params.model for params in found} == {"org/a", "org/b"}
    assert {params.epochs for params in found} == {2, 5}  # the step of 3 does not reach 6
    assert {round(params.dropout or 0.0, 9) for params in found} == {0.0, 0.1, 0.2, 0.3}
    assert {params.resolve_frozen_layers(6) for params in found} == set(range(7))
