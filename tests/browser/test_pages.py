"""The report and optuna-dashboard, opened in a headless Chromium on a finished study."""

from pathlib import Path
from typing import Any

import pytest

import hpo
from hpo.core.paths import named_folder
from tests.browser.conftest import dashboard
from tests.small_models import save_bert, write_reviews

pytestmark = pytest.mark.browser


@pytest.fixture
def result(tmp_path: Path) -> hpo.Result:
    write_reviews(tmp_path / "reviews", train=240)
    save_bert(tmp_path / "tiny-bert", layers=2)
    return hpo.run(
        {
            "name": "reviews & <b>more</b>",
            "data": str(tmp_path / "reviews"),
            "models": [str(tmp_path / "tiny-bert")],
            "search_space": {
                "learning_rate": {"low": 1e-3, "high": 3e-2, "log": True},
                "epochs": {"low": 1, "high": 3},
                "frozen_layers": {"share": [0, 1]},
            },
            "first_trials": [{"learning_rate": 1e-2, "epochs": 3}],
            "budget": {"max_trials": 6},
            "confirm": {"top": 1, "seeds": 2},
            "backend": "inline",
            "devices": "cpu",
        }
    )


def test_report_shows_the_study(result: hpo.Result, page: Any) -> None:
    page.goto((named_folder(result.name) / "report.html").as_uri())
    assert page.locator("h1").inner_text().strip() == "reviews & <b>more</b>"
    assert page.locator("h1 b").count() == 0  # a name is text, not markup
    assert f"{result.metrics['accuracy']:.3f}" in page.locator("body").inner_text()
    page.wait_for_selector(".js-plotly-plot .main-svg")
    assert page.locator(".js-plotly-plot").count() >= 5
    assert page.locator("#trials tbody tr").count() == 6
    # Sorting by a column works.
    page.locator("#trials th", has_text="accuracy").first.click()
    assert page.problems == []


def test_dashboard_shows_the_study(result: hpo.Result, page: Any) -> None:
    with dashboard() as address:
        page.goto(f"{address}/dashboard")
        page.get_by_text(". reviews & <b>more</b>").last.click()
        page.wait_for_selector(".js-plotly-plot .main-svg")
        body = page.locator("body").inner_text()
        assert "History" in body
        page.goto(page.url.rstrip("/") + "/trials")
        page.get_by_text("Trial 0", exact=False).first.click()
        page.get_by_text("frozen_layers", exact=False).first.wait_for()
        text = page.locator("body").inner_text()
        assert "learning_rate" in text
        assert "seconds" in text
        assert "metrics" in text
