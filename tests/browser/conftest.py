"""A page of a headless Chromium, and the dashboard as the command starts it."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import urllib3

FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def page() -> Iterator[Any]:
    """Yield a page of the system's Chromium; errors in its console are collected in `page.problems`."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS, chromium_sandbox=False)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(180_000)  # on a busy machine a report of 4 MB took over 30 s
        page.problems = []
        page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        yield page
        browser.close()


@contextmanager
def dashboard() -> Iterator[str]:
    """Yield the address of `hpo dashboard` on the database of this test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "hpo.cli", "dashboard", "--port", str(port)])
    try:
        address = f"http://127.0.0.1:{port}"
        # Retry for up to five minutes: beside 16 busy processes the start took over eight seconds.
        until = urllib3.Retry(total=None, connect=300, backoff_factor=0.1, backoff_max=1.0)
        urllib3.request("GET", address, retries=until)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=20)
