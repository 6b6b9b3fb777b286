"""Predictions in a terminal and in a pipe."""

import io

import pytest
from rich.console import Console

from hpo.reporting.console import console
from hpo.reporting.console.prediction_view import prediction_table


def test_predictions_in_a_pipe_are_tab_separated(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"label": "x", "score": 0.9, "text": "a\tb\nc"}, {"label": ["y", "z"], "score": [0.55, 0.7], "text": "d"}]
    console.show_predictions(rows)
    assert capsys.readouterr().out == "x\t0.900\ta b c\ny, z\t0.550, 0.700\td\n"
    console.show_predictions([{"entities": [{"text": "New York", "label": "place"}], "text": ["New", "York"]}])
    assert capsys.readouterr().out == '{"text": "New York", "label": "place"}\tNew, York\n'


def test_predictions_in_a_terminal_are_a_table_without_tags() -> None:
    rows = [{"entities": [{"text": "New York", "label": "place"}], "tags": ["B", "I"], "text": "New York"}]
    page = Console(file=io.StringIO(), width=60, record=True, markup=False)
    page.print(prediction_table(rows))
    shown = page.export_text()
    assert "New York (place)" in shown and "tags" not in shown
