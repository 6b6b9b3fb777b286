"""The schema of a study: an error for each key, labels of models, and a round trip through YAML."""

from typing import Any

import pytest

from hpo.config.load import load_config
from hpo.config.study import StudyConfig
from hpo.config.yaml import parse_yaml, to_yaml
from hpo.errors import ConfigError


def written(**changed: Any) -> dict[str, Any]:
    """Return the minimal configuration of a study, with some keys changed."""
    return {"name": "s", "data": "d.csv", "models": ["org/a"], "search_space": {"learning_rate": 1e-3}, **changed}


def test_every_field_round_trips() -> None:
    everything = {
        "name": "all: of # it",
        "task": "text-classification",
        "data": {
            "path": "org/data",
            "name": "small",
            "revision": "1",
            "text": ["premise", "hypothesis"],
            "label": "no",
            "train": "a.csv",
            "validation": "b.csv",
            "test": "c.csv",
            "validation_size": 0.2,
            "test_size": 0.1,
            "drop_empty": True,
            "encoding": "latin-1",
        },
        "models": [
            "org/a",
            {
                "name": "org/b",
                "revision": "v2",
                "subfolder": "x",
                "processor": "org/t",
                "trust_remote_code": True,
                "allow_pickle": True,
                "label": "mine",
            },
        ],
        "search_space": {
            "learning_rate": {"low": 1e-6, "high": 1e-4, "log": True},
            "dropout": {"low": 0, "high": 0.4, "step": 0.2, "when": {"model": "mine"}},
            "frozen_layers": {"share": [0, 0.5]},
            "batch_size": [8, 16],
            "epochs": {"low": 1, "high": 3},
            "lr_scheduler": "cosine",
        },
        "first_trials": [{"learning_rate": 1e-5, "frozen_layers": {"share": 0.25}}],
        "metric": "f1_macro",
        "direction": "maximize",
        "max_seconds": 12.5,
        "max_length": 64,
        "sampler": {"name": "tpe", "n_startup_trials": 5},
        "pruner": {"name": "none"},
        "fidelity": {"rungs_per_epoch": 2},
        "generation": {"rows": 50, "num_beams": 2, "max_target_length": 40},
        "budget": {"max_trials": 5, "max_hours": 1.5},
        "confirm": {"top": 1, "seeds": 1},
        "refit": "none",
        "keep_adapter": True,
        "devices": ["cuda:0", "cuda:1"],
        "workers": 3,
        "trials_per_device": 2,
        "backend": {"ray": {"address": "auto", "gpus_per_worker": 0.5, "cpus_per_worker": 2}},
        "checkpoints": "s3://bucket/checkpoints",
        "storage": "sqlite:///x.db",
        "seed": 7,
        "warm_start": ["earlier", "another"],
        "portfolio": [{"when": {"model_type": ["bert"], "max_params": 5_000_000}, "epochs": 2}],
        "rank": False,
        "callbacks": ["/x/callback.py:Mine"],
        "constraints": {"max_params": 30_000_000, "max_latency_ms": 20.0, "max_memory_mb": 500.0},
    }
    assert everything.keys() == StudyConfig.model_fields.keys()  # a new field is to be added above
    config = load_config(everything)
    defaults = load_config(written())
    assert [key for key in StudyConfig.model_fields if getattr(config, key) == getattr(defaults, key)] == ["task"]
    assert load_config(config.to_dict()) == config
    assert load_config(parse_yaml(to_yaml(config.to_dict()), "")) == config
    assert load_config(config) == config
    assert "storage" not in config.redacted()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metrik": "f1"}, "metrik: no such key. Did you mean 'metric'? Allowed: name, task, data"),
        ({"budget": {"max_trial": 1}}, "budget.max_trial: no such key. Did you mean 'max_trials'? Allowed: max_trials"),
        ({"data": {"path": "x", "txt": "a"}}, "data.txt: no such key. Did you mean 'text'?"),
        ({"models": [{"name": "m", "procesor": "t"}]}, "models.0.procesor: no such key. Did you mean 'processor'?"),
        ({"fidelity": {"rung_per_epoch": 1}}, "fidelity.rung_per_epoch: no such key. Did you mean 'rungs_per_epoch'?"),
        ({"confirm": {"tops": 1}}, "confirm.tops: no such key. Did you mean 'top'?"),
        (
            {"first_trials": [{"lerning_rate": 1}]},
            "first_trials[0].lerning_rate: no such key. Did you mean 'learning_r",
        ),
        (
            {"first_trials": [{"model": "org/b"}]},
            "first_trials[0].model: 'org/b' is not among the models: org/a. Did you",
        ),
        ({"first_trials": [{"batch_size": 2.5}]}, "first_trials[0].batch_size: must be an integer (given: 2.5)"),
        ({"first_trials": {"epochs": 1}}, "first_trials: must be a list"),
        ({"search_space": "text-encoder"}, "'text-encoder' is neither a file nor ready-made. Did you mean 'text-encod"),
        ({"search_space": None}, "search_space: must hold keys with values"),
        (
            {"search_space": {"dropout": {"value": 0.1, "when": {"model": "org/c"}}}},
            "search_space.dropout.when.model: 'o",
        ),
        ({"data": {}}, "data.path: this key is required"),
        ({"data": ["a"]}, "data: must hold keys with values"),
        ({"data": {"path": "x", "text": []}}, "data.text: write one column, or several as [first, second, …]"),
        ({"data": {"path": "x", "test_size": 1}}, "data.test_size: must be less than 1 (given: 1)"),
        ({"models": []}, "models: must hold at least one value"),
        ({"models": [""]}, "models.0.name: must not be empty"),
        ({"models": ["org/a", "org/a"]}, "models: 'org/a' is listed twice"),
        ({"models": [3]}, "models.0: must hold keys with values (given: 3)"),
        ({"direction": "maximise"}, "direction: must be 'maximize' or 'minimize' (given: 'maximise')"),
        ({"max_length": 0}, "max_length: must be greater than or equal to 4 (given: 0)"),
        ({"budget": {"max_trials": 0}}, "budget.max_trials: must be greater than or equal to 1"),
        ({"budget": {"max_hours": float("nan")}}, "budget.max_hours: must be a finite number"),
        ({"workers": 1.5}, "workers: must be an integer (given: 1.5)"),
        ({"sampler": 3}, "sampler: write a name, or {name: …} with its arguments"),
        ({"name": " "}, "name: must not be empty"),
        ({"name": "a\0b"}, "name: must not contain a NUL character"),
        ({"name": "a" * 513}, "name: must have at most 512 characters; this one has 513"),
    ],
)
def test_error_names_the_key_and_what_is_allowed(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(**changed))
    assert message in str(caught.value)


def test_numbers_are_read_as_strings_where_expected() -> None:
    config = load_config(written(name=2026, data={"path": "d", "label": 3, "text": [1]}))
    assert (config.name, config.data.label, config.data.text) == ("2026", "3", "1")
    assert load_config(written(sampler="RandomSampler")).sampler == {"name": "RandomSampler"}


def test_models_are_named_by_their_labels() -> None:
    config = load_config(written(models=["org/bert", {"name": "org/other", "label": "mine"}]))
    assert config.labels == ["org/bert", "mine"]
    assert config.model_ref("mine").name == "org/other"
    assert config.drop_models({"mine": "too large"}).labels == ["org/bert"]


@pytest.mark.parametrize(
    "changed",
    [
        {"checkpoints": "s3://KEY:S3/CR3T@bucket"},
        {"checkpoints": "simplecache::s3://KEY:S3CR3T@bucket"},
        {"checkpoints": "az://container/x?account_key=S3CR3T"},
        {"checkpoints": "abfs://container/x?sas_token=S3CR3T"},
        {"backend": {"slurm": {"setup": ["export WANDB_API_KEY=S3CR3T"]}}},
        {"backend": {"slurm": {"options": {"password": "S3CR3T"}}}},
        {"models": ["https://me:S3CR3T@host/model"]},
    ],
)
def test_secret_that_would_be_recorded_is_refused_and_not_shown(changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="would be recorded") as raised:
        load_config(written(**changed))
    assert "S3CR3T" not in str(raised.value) and "CR3T" not in str(raised.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"budget": {"max_trials": True}}, "max_trials: must be an integer"),
        ({"budget": {"max_hours": True}}, "max_hours: must be a number"),
        ({"workers": False}, "workers: must be an integer"),
        ({"seed": True}, "seed: must be an integer"),
        ({"data": {"path": "d.csv", "test_size": True}}, "test_size: must be a number"),
        ({"devices": []}, "devices: must name at least one device"),
        ({"devices": ""}, "devices: must name at least one device"),
    ],
)
def test_truth_is_no_number_and_nothing_no_device(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(written(**changed))
