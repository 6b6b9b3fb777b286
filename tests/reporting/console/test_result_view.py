"""The result of a study: winner, comparison, test score and commands."""

import pytest

from hpo.reporting.console import console
from tests.reporting.statuses import RESULT


def test_result_shows_winner_comparison_test_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_result(RESULT, [("hpo predict 'a text'", "classify a text"), ("hpo report", "the report")])
    out = capsys.readouterr().out
    for part in (
        "Winner: trial 7",
        "bért-3x128 [red]",
        "0.705 ± 0.007",
        "winner +0.025",
        "0.712 (95 % interval 0.680 to 0.740, 1,000 rows), test evaluated 2×",
        "0.655 TF-IDF + logistic regression",
        "studies/runs/quick/final",
        "hpo predict 'a text'  classify a text",
    ):
        assert part in out
    assert "\x1b" not in out


def test_result_without_test_split_defaults_or_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_result(RESULT.model_copy(update={"test": None, "baseline": None, "defaults": None}))
    assert "test accuracy" not in capsys.readouterr().out
