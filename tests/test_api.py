"""The public names of `hpo`, and what each of them accepts and returns."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from datasets import Dataset

import hpo
from hpo.reporting import plots
from hpo.workflow.configure import configure
from hpo.workflow.result import open_predictor
from tests.small_models import save_bert, write_reviews

ERRORS = (
    *("ConfigError", "DataError", "DeviceLost", "Diverged", "HpoError", "ModelError", "OutOfMemory"),
    *("StorageError", "StudyError", "TrialError"),
)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    write_reviews(folder / "reviews", train=240)
    save_bert(folder / "tiny")
    return folder


def study_of(workshop: Path) -> dict[str, Any]:
    return {
        "name": "reviews",
        "data": str(workshop / "reviews"),
        "models": [str(workshop / "tiny")],
        "search_space": {"learning_rate": {"low": 1e-3, "high": 3e-2, "log": True}, "epochs": 3},
        "first_trials": [{"learning_rate": 1e-2}],
        "budget": {"max_trials": 2},
        "confirm": {"top": 1, "seeds": 1},
        "backend": "inline",
        "devices": "cpu",
    }


@pytest.fixture
def small_study(workshop: Path) -> dict[str, Any]:
    return study_of(workshop)


def test_dir_shows_the_public_names_and_nothing_else() -> None:
    assert "workflow" in vars(hpo)  # a submodule that was imported is not shown
    assert dir(hpo) == hpo.__all__
    assert not [name for name in dir(hpo) if name.startswith("_") and name != "__version__"]
    for name in hpo.__all__:
        assert getattr(hpo, name) is not None
        if name != "__version__":
            assert getattr(hpo, name).__name__ == name
            assert getattr(hpo, name).__doc__
    assert all(issubclass(getattr(hpo, name), hpo.HpoError) for name in ERRORS)


def test_import_loads_no_library() -> None:
    heavy = "torch transformers optuna datasets pandas rich sqlalchemy evaluate sklearn pydantic numpy"
    script = f"import sys, hpo; print([name for name in '{heavy}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_quiet_prints_nothing(small_study: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    hpo.run(small_study, quiet=True)
    assert capfd.readouterr() == ("", "")
    hpo.run(small_study)
    assert "is finished" in capfd.readouterr().out


def test_a_table_alone_is_a_study_with_the_metric_that_suits_it(
    small_study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    texts = [f"a {'good' if n % 5 else 'bad'} film, the {n}th" for n in range(200)]
    table = pd.DataFrame({"text": texts, "label": ["yes" if n % 5 else "no" for n in range(200)]})
    models = f"models=[{small_study['models'][0]}]"
    config = configure(table, [models, "budget.max_trials=3"], name="films")
    assert (config.name, config.task, config.metric) == ("films", "text-classification", "f1_macro")
    assert config.budget.max_trials == 3 and config.labels == ["tiny"]
    assert configure(table, [models]).name == Path(config.data.path).name
    assert configure(table, [models, "metric=accuracy"]).metric == "accuracy"


@pytest.fixture(scope="module")
def result(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[hpo.Result]:
    """A finished study in a folder of its own, which the tests only read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_HOME", str(tmp_path_factory.mktemp("home")))
        yield hpo.run(study_of(workshop) | {"budget": {"max_trials": 3}})


def test_repr_is_a_short_table_and_html_one_with_the_best_trials(result: hpo.Result) -> None:
    lines = repr(result).splitlines()
    assert len(lines) <= 10 and "Result of study 'reviews'" in lines[0]
    assert f"trial {result.winner.trial}: model tiny" in repr(result)
    page = result._repr_html_()
    assert "<table>" in page and "learning_rate" in page and str(result.model_dir) in page


def test_the_leaderboard_lists_confirmed_trials_first(result: hpo.Result) -> None:
    table = result.leaderboard()
    assert sorted(table.index) == [trial.number for trial in result.study.trials]
    assert table.index[0] == result.winner.trial
    assert table.confirmed.iloc[0] == result.winner.mean and table.seeds.iloc[0] == 1
    assert table.confirmed.iloc[1:].isna().all()
    complete = table[(table.state == "complete") & table.confirmed.isna()]
    assert complete.value.is_monotonic_decreasing
    assert set(table.columns) >= {"state", "value", "std", "seconds", "model", "learning_rate"}


@pytest.mark.parametrize(
    "name", ["history", "curves", "importances", "models", "gaps", "slices", "parallel", "confusion"]
)
def test_the_reports_figures_are_plotly_figures(name: str, result: hpo.Result) -> None:
    import plotly.graph_objects as go

    assert isinstance(getattr(result, f"plot_{name}")(), go.Figure)


def test_a_figure_of_nothing_raises_the_reason_of_the_report() -> None:
    with pytest.raises(hpo.StudyError, match="no trial has reported a value"):
        plots.curves(optuna.create_study())


def test_a_predictor_opens_no_database(result: hpo.Result, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpo.storage import storage
    from hpo.workflow import result as of_studies

    def refuse(*_: Any) -> None:
        raise AssertionError("a database was opened")

    monkeypatch.setattr(storage, "open_storage", refuse)
    monkeypatch.setattr(of_studies, "open_storage", refuse)
    assert hpo.Predictor(result.model_dir).predict("a great film")[0]["label"] in ("positive", "negative")
    assert open_predictor(str(result.model_dir), None).folder == result.model_dir
    monkeypatch.setenv("HPO_HOME", str(result.model_dir.parents[2]))
    assert open_predictor("reviews", None).predict("a great film")
    with pytest.raises(hpo.StudyError, match="There is no final model at"):
        hpo.Predictor(result.model_dir.parent)


def test_predictions_are_of_what_was_asked(result: hpo.Result) -> None:
    one = result.predict("a great film")
    assert len(one) == 1 and one[0]["text"] == "a great film"
    assert result.predict([{"text": "a great film"}]) == result.predict({"text": "a great film"}) == one
    table = Dataset.from_dict({"text": ["a great film"], "label": ["negative"]})
    assert result.predict(table) == result.predict(table.to_pandas()) == one
    assert result.predict([]) == [] and result.predict_proba([]).empty
    found = result.predict_proba(["a great film", "an awful one"])
    assert list(found.columns) == ["negative", "positive"] and found.shape == (2, 2)
    assert found.iloc[0].max() == pytest.approx(one[0]["score"], abs=1e-6)
    with pytest.raises(hpo.DataError, match="'text'"):
        result.predict([{"txt": "a great film"}])


def test_evaluate_scores_labeled_rows(result: hpo.Result, workshop: Path) -> None:
    import pandas as pd

    test = workshop / "reviews" / "test.csv"
    table = pd.read_csv(test)
    found = result.evaluate(test)
    assert found["accuracy"] == result.metrics["accuracy"] > 0.9
    assert (
        result.evaluate(workshop / "reviews")
        == result.evaluate(table)
        == result.evaluate(Dataset.from_pandas(table))
        == found
    )
    positive = table[table.label == "positive"]  # one class of two: its number is another one there
    predicted = [answer["label"] for answer in result.predict(positive)]
    assert result.evaluate(positive)["accuracy"] == predicted.count("positive") / len(positive) > 0.8
    with pytest.raises(hpo.DataError, match="does not know the label 'fair', only negative, positive"):
        result.evaluate(table.assign(label="fair"))
    with pytest.raises(hpo.DataError, match="which column holds the label"):
        result.evaluate(table.drop(columns="label"))
    with pytest.raises(hpo.DataError, match="'text'"):
        result.evaluate(table.rename(columns={"text": "review"}))
    with pytest.raises(hpo.DataError, match="Labeled data is a path, a DataFrame or a Dataset, not list"):
        result.evaluate(["a great film"])
