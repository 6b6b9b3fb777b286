"""`hpo init`: the study file that it writes is read, is right, and runs as it is."""

import csv
from pathlib import Path
from typing import Any

import pytest

import hpo
from hpo.config.load import load_config
from hpo.config.yaml import read_yaml
from hpo.errors import ConfigError, DataError, HpoError
from hpo.tasks.base import ENCODERS
from hpo.tasks.registry import get_task
from hpo.training import execution
from hpo.training.models import hub
from hpo.workflow import init
from hpo.workflow.checks.study import check
from hpo.workflow.init import propose_models, write_study_file

CLASSES = get_task("text-classification")


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def rows_of(classes: dict[str, int], texts: int = 1) -> list[list[str]]:
    """`texts` texts and a class in each row, so many of each class; no text twice."""
    return [
        [*(f"{name} {index} {column}" for column in range(texts)), name]
        for name, many in classes.items()
        for index in range(many)
    ]


def test_written_file_runs_as_it_is(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models = [str(workshop / "shallow"), str(workshop / "deep")]
    path = write_study_file(str(workshop / "reviews"), models)
    assert path == Path("studies/reviews.yaml")
    config = load_config(path)
    assert [ref.name for ref in config.models] == models
    assert Path(config.data.path) == workshop / "reviews"
    assert (config.metric, config.budget.max_trials, config.data.text) == ("accuracy", 24, "text")
    assert config.search_space == load_config({**config.to_dict(), "search_space": "small-data"}).search_space
    check(path)
    small = ["backend=inline", "devices=cpu", "first_trials=[]", "search_space.epochs=1", "confirm={top: 1, seeds: 1}"]
    result = hpo.run(path, trials=3, overrides=[*small, "search_space.learning_rate={low: 1e-3, high: 1e-2}"])
    assert len(result.study.trials) == 3
    assert set(result.metrics) >= {"accuracy", "f1_macro"}


def test_written_file_is_readable(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_study_file(str(workshop / "reviews"), ["org/a"], output=Path("mine.yaml"))
    text = path.read_text()
    assert "# text-classification: text 'text', label 'label'; columns not used: none\n" in text
    assert "# rows: 240 train, 32 validation, 32 test; none dropped\n# 2 classes: negative, positive\n" in text
    assert f"#   hpo run {path}" in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    assert "\n\n\n" not in text and text.endswith("\n") and not text.endswith("\n\n")
    assert not [line for line in lines if line != line.rstrip() or ("{" in line and "}" not in line)]
    assert list(read_yaml(path)) == [key for key in hpo.StudyConfig.model_fields if key in read_yaml(path)]


def test_uneven_classes_suggest_macro_f1(tmp_path: Path) -> None:
    even = write_csv(tmp_path / "even.csv", ["text", "label"], rows_of({"a": 40, "b": 30}))
    uneven = write_csv(tmp_path / "uneven.csv", ["text", "label"], rows_of({"a": 120, "b": 30}))
    assert load_config(write_study_file(str(even), ["m"], output=tmp_path / "e.yaml")).metric == "accuracy"
    path = write_study_file(str(uneven), ["m"], output=tmp_path / "u.yaml")
    assert load_config(path).metric == "f1_macro"
    assert "# f1_macro, since the largest class has 4 times the rows of the smallest." in path.read_text()


def test_odd_names_are_quoted(tmp_path: Path) -> None:
    folder = tmp_path / "my data: #1"
    folder.mkdir()
    names = {"no": 30, "# off": 30, "a\nb": 30}
    data = write_csv(folder / "it's [odd], {really}.csv", ["the: text", "1e-5"], rows_of(names))
    path = write_study_file(str(data), ["org/a"], text=["the: text"], label=["1e-5"], output=tmp_path / "odd name.yaml")
    config = load_config(path)
    assert config.data.path == str(data)
    assert (config.data.text, config.data.label) == ("the: text", "1e-5")
    assert f"hpo run '{path}'" in path.read_text()
    with pytest.raises(DataError, match=r"which column holds the label\? .* Name it in `--label`\."):
        write_study_file(str(write_csv(tmp_path / "x.csv", ["one", "two", "three"], rows_of(names, texts=2))), ["m"])


def test_search_space_depends_on_the_rows_unless_one_is_named(tmp_path: Path) -> None:
    rows = rows_of({"a": 450, "b": 450})
    data = str(write_csv(tmp_path / "much.csv", ["text", "label"], rows))
    much = load_config(write_study_file(data, ["m"], output=tmp_path / "much.yaml"))
    little = str(write_csv(tmp_path / "little.csv", ["text", "label"], rows_of({"a": 60, "b": 60})))
    few = load_config(write_study_file(little, ["m"], output=tmp_path / "little.yaml"))
    named = load_config(write_study_file(data, ["m"], output=tmp_path / "n.yaml", space="text-encoders-lora"))
    for config, space in ((much, "text-encoders"), (few, "small-data"), (named, "text-encoders-lora")):
        ready = load_config({"name": "n", "data": data, "models": ["m"], "search_space": space})
        assert (config.search_space, config.first_trials) == (ready.search_space, ready.portfolio)
    with pytest.raises(ConfigError, match=r"--space text-encoder: .* Did you mean 'text-encoders'"):
        write_study_file(data, ["m"], output=tmp_path / "x.yaml", space="text-encoder")


def test_group_is_written(tmp_path: Path) -> None:
    rows = [[*row, str(index // 5)] for index, row in enumerate(rows_of({"a": 40, "b": 40}))]
    data = str(write_csv(tmp_path / "notes.csv", ["text", "label", "patient"], rows))
    path = write_study_file(data, ["m"], output=tmp_path / "notes.yaml", group="patient")
    assert load_config(path).data.group == "patient"
    assert "complete groups of the 16 by 'patient'" in path.read_text()
    with pytest.raises(DataError, match=r"--group: .* 'patent'.*Did you mean 'patient'"):
        write_study_file(data, ["m"], output=tmp_path / "x.yaml", group="patent")


def test_pairs_are_written_as_two_columns(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "nli.csv", ["premise", "hypothesis", "label"], rows_of({"yes": 30, "no": 30}, texts=2))
    config = load_config(write_study_file(str(data), ["m"], output=tmp_path / "nli.yaml"))
    assert config.data.text == ("premise", "hypothesis")
    own = write_csv(tmp_path / "own.csv", ["one", "two", "label"], rows_of({"yes": 30, "no": 30}, texts=2))
    path = write_study_file(str(own), ["m"], text=["two", "one"], output=tmp_path / "own.yaml")
    assert load_config(path).data.text == ("two", "one")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "tiny"}, r"--size tiny: choose one of small, base, large"),
        ({"models": ["./nowhere"]}, r"--model \./nowhere: there is no folder /.*/nowhere"),
        ({"text": ["text", "text", "text"]}, r"--text: one column, or two for pairs of texts, not 3"),
        ({"models": ["m"], "output": Path("there.yaml")}, r"there\.yaml exists already.*--output"),
    ],
)
def test_mistakes_raise_and_nothing_is_written(
    options: dict[str, Any], message: str, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.yaml").write_text("a user's own")
    with pytest.raises(HpoError, match=message):
        write_study_file(str(workshop / "reviews"), **options)
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]
    assert Path("there.yaml").read_text() == "a user's own"


def test_models_are_proposed_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "hub_is_unreachable", lambda: False)
    monkeypatch.setattr(execution, "available_devices", lambda: ["cpu"])
    assert propose_models(None, CLASSES)[0] == ENCODERS["small"]
    monkeypatch.setattr(execution, "available_devices", lambda: ["cuda:0", "cpu"])
    assert propose_models(None, CLASSES)[0] == ENCODERS["base"]
    for size, models in ENCODERS.items():
        proposed, remark = propose_models(size, CLASSES)
        assert proposed == models
        assert f"size {size}" in remark


def test_without_the_hub_cached_then_bundled_models_are_proposed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workshop: Path
) -> None:
    monkeypatch.setattr(execution, "available_devices", lambda: ["cpu"])
    monkeypatch.setattr(init, "is_cached", lambda name: "MiniLM" in name)
    assert propose_models(None, CLASSES) == (ENCODERS["small"][:1], "The hub is unreachable; these are in its cache.")
    monkeypatch.setattr(init, "is_cached", lambda name: False)
    monkeypatch.setattr(init, "asset_folder", lambda name: workshop)
    proposed, remark = propose_models(None, CLASSES)
    assert proposed == (str(workshop / "deep"), str(workshop / "shallow"))
    assert "demonstration models" in remark and ENCODERS["small"][0] in remark
    monkeypatch.setattr(init, "asset_folder", lambda name: tmp_path)
    with pytest.raises(ConfigError, match="Name a local one: --model FOLDER"):
        propose_models(None, CLASSES)
