"""A study file: every key's mistakes, paths, models' labels, overrides, and that what is kept is read back."""

from pathlib import Path
from typing import Any

import pytest

from hpo.config.load import load_config
from hpo.config.study import StudyConfig
from hpo.config.yaml import parse_yaml, to_yaml
from hpo.errors import ConfigError


def written(**changed: Any) -> dict[str, Any]:
    """The least that a study needs, with some keys changed."""
    return {"name": "s", "data": "d.csv", "models": ["org/a"], "search_space": {"learning_rate": 1e-3}, **changed}


def test_the_least_a_person_writes_is_enough(tmp_path: Path) -> None:
    (tmp_path / "reviews.yaml").write_text("data: imdb\nmodels: org/a\n")
    config = load_config(tmp_path / "reviews.yaml")
    assert config.name == "reviews"
    assert config.labels == ["org/a"]
    assert config.data.path == "imdb"
    assert "learning_rate" in config.search_space.parameters  # the ready-made text-encoders


def test_every_field_is_kept_and_read_back() -> None:
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
    ("changed", "told"),
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
        ({"first_trials": [{"batch_size": 2.5}]}, "first_trials[0].batch_size: must be a whole number (given: 2.5)"),
        ({"first_trials": {"epochs": 1}}, "first_trials: must be a list"),
        ({"search_space": "text-encoder"}, "'text-encoder' is neither a file nor ready-made. Did you mean 'text-encod"),
        ({"search_space": None}, "search_space: must hold keys with values"),
        (
            {"search_space": {"dropout": {"value": 0.1, "when": {"model": "org/c"}}}},
            "search_space.dropout.when.model: 'o",
        ),
        ({"data": {}}, "data.path: this key is needed"),
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
        ({"workers": 1.5}, "workers: must be a whole number (given: 1.5)"),
        ({"sampler": 3}, "sampler: write a name, or {name: …} with its arguments"),
        ({"name": " "}, "name: a study needs a name that is not empty"),
        ({"name": "a\0b"}, "name: a study's name cannot hold a NUL character"),
        ({"name": "a" * 513}, "name: a study's name has at most 512 characters; this one has 513"),
    ],
)
def test_a_mistake_names_its_key_and_what_is_allowed(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(**changed))
    assert told in str(caught.value)


def test_a_mistake_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("data: d\nmodels: m\nsearch_space: {epochs: 0}\n")
    with pytest.raises(ConfigError, match=r"x\.yaml: search_space\.epochs: 0 is not allowed"):
        load_config(path)
    path.write_text("data: d\nmodels: m\nseeds: 1\n")
    with pytest.raises(ConfigError, match=r"x\.yaml: seeds: no such key. Did you mean 'seed'"):
        load_config(path)


def test_numbers_stand_for_their_text_where_text_is_due() -> None:
    config = load_config(written(name=2026, data={"path": "d", "label": 3, "text": [1]}))
    assert (config.name, config.data.label, config.data.text) == ("2026", "3", "1")
    assert load_config(written(sampler="RandomSampler")).sampler == {"name": "RandomSampler"}


def test_models_get_short_labels_of_their_own(tmp_path: Path) -> None:
    models = [
        "org/bert",
        str(tmp_path / "one" / "bert"),
        str(tmp_path / "two" / "bert"),
        {"name": "org/bert", "revision": "v2"},
        {"name": "org/bert", "subfolder": "small"},
        {"name": "org/other", "label": "mine"},
    ]
    config = load_config(written(models=models))
    assert config.labels == ["org/bert", "bert", "two/bert", "org/bert@v2", "org/bert/small", "mine"]
    assert config.model_ref("two/bert").name == models[2]
    with pytest.raises(ConfigError, match="'mine' is listed twice"):
        load_config(written(models=[*models, {"name": "org/third", "label": "mine"}]))
    with pytest.raises(ConfigError, match=r"models: '.*/one/bert' is listed twice"):
        load_config(written(models=[models[1], models[1]] * 9))


def test_relative_paths_start_at_the_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies, elsewhere = tmp_path / "studies", tmp_path / "elsewhere"
    for folder in (studies / "spaces", tmp_path / "model", elsewhere):
        folder.mkdir(parents=True)
    (tmp_path / "data.csv").write_text("text,label\n")
    (studies / "spaces" / "mine.yaml").write_text("epochs: 2\n")
    path = studies / "s.yaml"
    path.write_text(
        "data: ../data.csv\nmodels: [../model, {name: ./none, processor: ../model}, org/a]\n"
        "metric: ./my_metric.py\nsearch_space: spaces/mine.yaml\n"
    )
    monkeypatch.chdir(elsewhere)
    config = load_config(path)
    assert config.data.path == str(tmp_path / "data.csv")
    assert [model.name for model in config.models] == [str(tmp_path / "model"), str(studies / "none"), "org/a"]
    assert config.models[1].processor == str(tmp_path / "model")
    assert config.metric == str(studies / "my_metric.py")
    assert list(config.search_space.parameters) == ["epochs"]
    (elsewhere / "here.csv").write_text("")
    assert load_config(written(data="here.csv")).data.path == str(elsewhere / "here.csv")


def test_overrides_are_yaml_and_reach_into_shorthands() -> None:
    given = written(search_space="text-encoders")
    config = load_config(
        given,
        [
            "budget.max_trials=8",
            "search_space.learning_rate={low: 1e-5, high: 1e-3, log: true}",
            "search_space.batch_size=[4, 8]",
            "data.label=no",
            "models=[org/x, org/y]",
            "direction=",
            ("name", "a: b"),
            ("storage", "sqlite:///a: b #c"),
        ],
    )
    assert (config.budget.max_trials, config.data.label, config.data.path) == (8, "no", "d.csv")
    assert config.search_space.parameters["learning_rate"].extremes() == (1e-5, 1e-3)
    assert config.search_space.parameters["batch_size"].extremes() == (4, 8)
    assert "epochs" in config.search_space.parameters  # the rest of the ready-made space stays
    assert config.labels == ["org/x", "org/y"]
    assert (config.name, config.storage, config.direction) == ("a: b", "sqlite:///a: b #c", None)
    assert given == written(search_space="text-encoders")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("budget.max_trials", "write key=value, for example --set budget.max_trials=8"),
        ("=8", "write key=value"),
        ("budget.max_trals=8", "budget.max_trals: no such key. Did you mean 'max_trials'?"),
        ("name.first=8", "--set: 'name' holds a value, so there is no name.first"),
        ("budget.max_trials=many", "budget.max_trials: must be a whole number (given: 'many')"),
        ("seed=!!python/name:os.system", "--set seed=.*tag"),
        ("metric=a: b", "--set metric=a: b, line 1: not valid YAML"),
    ],
)
def test_a_mistake_in_an_override_is_told(override: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(), [override])
    start, _, end = told.partition(".*")
    assert start in str(caught.value) and end in str(caught.value)


def test_good_defaults_come_with_a_search_space() -> None:
    space = {"learning_rate": [1e-4, 1e-3], "first_trials": [{"when": {"max_params": 5e6}, "learning_rate": 1e-3}]}
    config = load_config(written(search_space=space))
    assert config.portfolio == tuple(space["first_trials"])
    assert list(config.search_space.parameters) == ["learning_rate"]
    assert load_config(written(search_space="text-encoders")).portfolio
    with pytest.raises(ConfigError, match=r"search_space\.first_trials\[0\]\.lerning_rate: no such key"):
        load_config(written(search_space={"epochs": 3, "first_trials": [{"lerning_rate": 1}]}))
