"""trials.csv: every trial, numbers as numbers, and no formulas."""

import csv
from pathlib import Path

import optuna
import pytest

from hpo.reporting.csv import escape_formula, write_trials_csv
from tests.reporting.studies import make_study


def test_has_every_trial_with_its_values(tmp_path: Path) -> None:
    study, path = make_study(trials=8), tmp_path / "runs" / "trials.csv"
    write_trials_csv(study, path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["number"]) for row in rows] == list(range(8))
    assert rows[3]["state"] == "fail" and rows[3]["value"] == "" and "NaN at step 12" in rows[3]["failure"]
    for row, trial in zip(rows, study.trials, strict=True):
        assert float(row["params.learning_rate"]) == trial.params["learning_rate"]
        if trial.state == optuna.trial.TrialState.COMPLETE:
            assert float(row["value"]) == trial.value
    assert list(path.parent.iterdir()) == [path]
    # The fourth model's name is a formula.
    assert {row["params.model"] for row in rows if "calc" in row["params.model"]} == {"'=cmd|' /C calc'!A0"}


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "  =1", "\n@x"])
def test_formulas_are_escaped(text: str) -> None:
    assert escape_formula(text) == f"'{text}"


@pytest.mark.parametrize("cell", [-1.5, 3, True, "plain", "a=b"])
def test_numbers_and_plain_texts_are_unchanged(cell: object) -> None:
    assert escape_formula(cell) == cell


def test_study_without_trials_has_a_header(tmp_path: Path) -> None:
    write_trials_csv(make_study(trials=0, result=False), tmp_path / "trials.csv")
    assert (tmp_path / "trials.csv").read_text().startswith("number,state,value,seconds")
