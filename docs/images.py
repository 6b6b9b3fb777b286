"""Create the README's images: the live view of a study as it is now, its report, and optuna-dashboard on it.

python docs/images.py live NAME       # docs/live.svg; best while the study runs
python docs/images.py pages NAME      # docs/report.png and docs/dashboard.png, with a Chromium of this system
"""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import urllib3
from rich.console import Console

from hpo.core.paths import run_folder
from hpo.reporting.console.live_view import panel
from hpo.storage.status import StudyStatus, read_status

HERE = Path(__file__).parent
PORT = 8129
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]


def live_image(status: StudyStatus, path: Path, width: int = 96) -> None:
    """Write the live view of `status`, `width` characters wide, as an SVG that loads nothing."""
    console = Console(record=True, file=io.StringIO(), width=width, markup=False, emoji=False, force_terminal=True)
    console.print(panel(status))
    svg = console.export_svg(title="hpo run")
    # rich's SVG loads its font from a server; any monospaced font of the reader is enough.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    path.write_text(svg, encoding="utf-8")


def pages(name: str) -> None:
    """Photograph the top of the study's report, and the dashboard's page of it."""
    from playwright.sync_api import sync_playwright

    from hpo.storage.storage import open_storage
    from hpo.workflow.studies import open_study

    number = open_study(open_storage(), name)._study_id
    server = subprocess.Popen(
        [sys.executable, "-m", "hpo.cli", "dashboard", "--port", str(PORT)], stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(f"http://127.0.0.1:{PORT}")
        with sync_playwright() as playwright:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS, chromium_sandbox=False)
            page = browser.new_page(viewport={"width": 1200, "height": 1100})
            page.goto((run_folder(name) / "report.html").as_uri())
            page.wait_for_selector(".js-plotly-plot .main-svg")
            page.wait_for_timeout(1500)
            page.screenshot(path=HERE / "report.png")
            page.goto(f"http://127.0.0.1:{PORT}/dashboard/studies/{number}")
            page.wait_for_selector(".js-plotly-plot .main-svg")
            page.wait_for_timeout(3000)
            page.screenshot(path=HERE / "dashboard.png")
            browser.close()
    finally:
        server.terminate()


def _wait_for(address: str) -> None:
    """Until the server answers: a minute at most."""
    urllib3.request("GET", address, retries=urllib3.Retry(connect=70, backoff_factor=0.1, backoff_max=1.0))


def main() -> None:
    from hpo.storage.storage import open_storage

    what, name = sys.argv[1:]
    if what == "pages":
        pages(name)
    else:
        live_image(read_status(open_storage(), name), HERE / "live.svg")


if __name__ == "__main__":
    main()
