"""The report: complete for any study, self-contained, and all text escaped."""

import json
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pytest

from hpo.reporting.html.report import write_report
from tests.reporting.studies import MODELS, make_study

TITLES = (
    "Confirmed configurations",
    "Optimization history",
    "Parameter importances",
    "Slices",
    "Parallel coordinates",
    "Learning curves",
    "Models compared",
    "Training and validation loss",
    "Confusion matrix",
    "Trials",
    "About",
)


class Page(HTMLParser):
    """The parts of a page that a browser loads and displays."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.titles: list[str] = []
        self.scripts: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [
            value or "" for key, value in attrs if key in ("src", "href") and not (value or "").startswith("#")
        ]
        self.handlers += [key for key, _ in attrs if key.startswith("on")]
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["script"]:
            self.scripts[-1] += data
        elif self.tags[-1:] == ["h2"] and data.strip():
            self.titles.append(data)
        self.text += "" if self.tags[-1:] == ["script"] else data

    def handle_endtag(self, tag: str) -> None:
        self.tags.append("")

    def figures(self) -> list[dict[str, list[object]]]:
        return json.loads(self.scripts[0])


def read(study: optuna.Study, folder: Path) -> Page:
    path = folder / "deep" / "report.html"
    write_report(study, path)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"], "a temporary file is left"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return read(make_study(), tmp_path_factory.mktemp("report"))


def test_has_every_section(page: Page) -> None:
    assert tuple(page.titles) == TITLES
    assert "No figure" not in page.text
    # history, importances, two rows of slices, parallel coordinates, curves, models, gap, confusion
    assert len(page.figures()) == 9


def test_headline_has_score_interval_and_comparisons(page: Page) -> None:
    for part in ("0.712", "0.684 to 0.740", "evaluated 2×", "0.655", "TF-IDF + logistic regression", "0.610"):
        assert part in page.text


def test_is_self_contained(page: Page) -> None:
    assert page.loads == []
    assert len(page.scripts) == 3  # the figures, plotly.js once, and the script that draws them


def test_texts_are_escaped(page: Page) -> None:
    assert page.handlers == []
    assert "img" not in page.tags
    # Displayed as text: the study's name, a model's, a label, a note, a failure.
    for text in ("<script>alert('name')</script>", MODELS[2], "<img src=x", "dropped <b>here</b>", "<i>of</i>"):
        assert text in page.text
    figures = page.scripts[0]
    assert "<" not in figures
    # plotly interprets some HTML: texts in figures are escaped a second time.
    assert "&lt;script&gt;alert(1)" in json.dumps(page.figures())
    assert "<script>" not in json.dumps(page.figures())


def test_has_no_folder_of_the_machine(page: Page) -> None:
    assert "/somewhere" not in page.text
    assert "hpo run quick.yaml --trials 16" in page.text


@pytest.mark.parametrize(
    ("trials", "pruner", "message"),
    [
        (0, None, "No trial has started yet."),
        (1, None, "at least two complete trials that differ in a parameter are needed"),
        (5, optuna.pruners.ThresholdPruner(lower=2), "no trial is complete yet"),
    ],
    ids=["none", "one", "all pruned or failed"],
)
def test_unfinished_study(trials: int, pruner: optuna.pruners.BasePruner | None, message: str, tmp_path: Path) -> None:
    page = read(make_study(trials=trials, result=False, pruner=pruner), tmp_path)
    assert "The study is not finished" in page.text
    assert message in page.text
    assert tuple(page.titles) == TITLES[1:]


def test_study_without_attributes_of_hpo(tmp_path: Path) -> None:
    study = optuna.create_study(direction="minimize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n_trials=3)
    assert "Best so far" in read(study, tmp_path).text


def test_running_and_infinite_trials_are_tolerated(tmp_path: Path) -> None:
    study = make_study(trials=6, result=False)
    study.ask().report(0.5, 1)
    study.tell(study.ask(), float("inf"))
    page = read(study, tmp_path)
    assert "8 trials" in page.text and "1 running" in page.text


def test_report_is_replaced_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("the previous report")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(make_study(trials=1, result=False), path)
    assert path.read_text() == "the previous report"
