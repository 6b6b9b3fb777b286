"""Reading a study: files and mappings, relative paths, shorthands and overrides."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.config.load import load_config
from hpo.errors import ConfigError


def written(**changed: Any) -> dict[str, Any]:
    """Return the minimal configuration of a study, with some keys changed."""
    return {"name": "s", "data": "d.csv", "models": ["org/a"], "search_space": {"learning_rate": 1e-3}, **changed}


def test_minimal_file(tmp_path: Path) -> None:
    (tmp_path / "reviews.yaml").write_text("data: imdb\nmodels: org/a\n")
    config = load_config(tmp_path / "reviews.yaml")
    assert config.name == "reviews"
    assert config.labels == ["org/a"]
    assert config.data.path == "imdb"
    assert "learning_rate" in config.search_space.parameters  # the ready-made text-encoders


def test_error_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("data: d\nmodels: m\nsearch_space: {epochs: 0}\n")
    with pytest.raises(ConfigError, match=r"x\.yaml: search_space\.epochs: 0 is not allowed"):
        load_config(path)
    path.write_text("data: d\nmodels: m\nseeds: 1\n")
    with pytest.raises(ConfigError, match=r"x\.yaml: seeds: no such key. Did you mean 'seed'"):
        load_config(path)


def test_relative_paths_are_resolved_against_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_overrides_are_yaml_and_expand_shorthands() -> None:
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
    ("override", "message"),
    [
        ("budget.max_trials", "write key=value, for example --set budget.max_trials=8"),
        ("=8", "write key=value"),
        ("budget.max_trals=8", "budget.max_trals: no such key. Did you mean 'max_trials'?"),
        ("name.first=8", "--set name.first: 'name' is a single value, so it has no key 'first'"),
        ("budget.max_trials=many", "budget.max_trials: must be an integer (given: 'many')"),
        ("seed=!!python/name:os.system", "--set seed=.*tag"),
        ("metric=a: b", "--set metric=a: b, line 1: not valid YAML"),
    ],
)
def test_error_in_an_override_names_it(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(), [override])
    start, _, end = message.partition(".*")
    assert start in str(caught.value) and end in str(caught.value)


def test_search_space_may_contain_first_trials() -> None:
    space = {"learning_rate": [1e-4, 1e-3], "first_trials": [{"when": {"max_params": 5e6}, "learning_rate": 1e-3}]}
    config = load_config(written(search_space=space))
    assert config.portfolio == tuple(space["first_trials"])
    assert list(config.search_space.parameters) == ["learning_rate"]
    assert load_config(written(search_space="text-encoders")).portfolio
    with pytest.raises(ConfigError, match=r"search_space\.first_trials\[0\]\.lerning_rate: no such key"):
        load_config(written(search_space={"epochs": 3, "first_trials": [{"lerning_rate": 1}]}))


def test_values_of_a_program_are_read_as_yaml_would_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert").mkdir()
    space = {
        "learning_rate": np.float32(1e-3),
        "batch_size": np.array([16, 32]),
        "epochs": range(1, 4),
        "weight_decay": {"low": np.float64(0), "high": np.array([0.1, 0.2], dtype=np.float32)[0]},
        "dropout": {"choices": (np.float32(0.1), 0.2)},
    }
    budget = {"max_trials": np.int64(3)}
    data = {"path": Path("d.csv"), "text": np.array(["a", "b"]), "drop_empty": np.bool_(True)}
    config = load_config(written(data=data, models=[Path("bert")], search_space=space, budget=budget))
    plain = config.to_dict()
    assert config.data.path == "d.csv" and config.data.text == ("a", "b") and config.data.drop_empty is True
    assert config.models[0].name == str(tmp_path / "bert")
    assert config.budget.max_trials == 3 and type(config.budget.max_trials) is int
    assert plain["search_space"] == {
        "learning_rate": 0.001,
        "batch_size": [16, 32],
        "epochs": [1, 2, 3],
        "weight_decay": {"low": 0.0, "high": 0.1},
        "dropout": [0.1, 0.2],
    }
    one = load_config(written(models=Path("bert")), [("seed", np.int32(5)), ("budget.max_trials", np.int64(7))])
    assert one.models[0].name == str(tmp_path / "bert") and one.seed == 5 and one.budget.max_trials == 7


def test_true_is_no_number_in_a_space_or_in_first_trials() -> None:
    with pytest.raises(ConfigError, match=r"weight_decay\.step: must be a number"):
        load_config(written(search_space={"weight_decay": {"low": 0, "high": 0.1, "step": True}}))
    with pytest.raises(ConfigError, match=r"first_trials\[0\].epochs: must be an integer"):
        load_config(written(first_trials=[{"epochs": True}]))
