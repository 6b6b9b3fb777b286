"""The report and optuna-dashboard, opened in a headless Chromium on a finished study."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

import hpo
from hpo.core.paths import run_folder
from tests.small_models import save_bert, write_reviews

pytestmark = pytest.mark.browser

FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


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


@pytest.fixture
def page() -> Iterator[Any]:
    """A page of a Chromium of this system; errors in its console are collected in `page.problems`."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS, chromium_sandbox=False)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(180_000)  # a busy machine drew a report of 4 MB in over 30 s
        page.problems = []
        page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        yield page
        browser.close()


def test_the_report_shows_the_study(result: hpo.Result, page: Any) -> None:
    page.goto((run_folder(result.name) / "report.html").as_uri())
    assert page.locator("h1").inner_text().strip() == "reviews & <b>more</b>"
    assert page.locator("h1 b").count() == 0  # a name is text, not markup
    assert f"{result.metrics['accuracy']:.3f}" in page.locator("body").inner_text()
    page.wait_for_selector(".js-plotly-plot .main-svg")
    assert page.locator(".js-plotly-plot").count() >= 5
    assert page.locator("#trials tbody tr").count() == 6
    # Sorting by a column works.
    page.locator("#trials th", has_text="accuracy").first.click()
    assert page.problems == []


def test_the_dashboard_shows_the_study(result: hpo.Result, page: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "hpo.cli", "dashboard", "--port", str(port)])
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(address)
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
    finally:
        server.terminate()
        server.wait(timeout=20)


def _wait_for(address: str) -> None:
    """Until the server answers: a minute at most."""
    urllib3.request("GET", address, retries=urllib3.Retry(connect=70, backoff_factor=0.1, backoff_max=1.0))
