"""Output: plain lines in pipes, a live panel in terminals, and names without control characters."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from hpo.reporting.console import console
from hpo.storage.status import StudyStatus
from tests.reporting.statuses import PARAMS, STATUS


class Screen(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables that rich reads."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Replace the console's terminal."""
    screen = Screen()
    terminal = Console(file=screen, width=80, markup=False)
    monkeypatch.setattr(console, "_console", lambda stderr=False: terminal)
    return screen


@pytest.mark.parametrize("force_color", ["", "1"])
def test_live_in_a_pipe_is_plain_lines(
    force_color: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if force_color:  # CI systems set it for color, not for cursor movement
        monkeypatch.setenv("FORCE_COLOR", force_color)
    states = iter([STATUS, STATUS, replace(STATUS, phase="finished")])
    over = iter([False, False, True])
    console.live(lambda: next(states), lambda: next(over), seconds=0)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\r" not in out
    assert out.count("searching") == 1 and out.count("finished") == 1 and out.count("best accuracy") == 1


def test_live_in_a_terminal_is_one_panel(screen: Screen) -> None:
    over = iter([False, True])
    console.live(lambda: STATUS, lambda: next(over), seconds=0)
    out = screen.getvalue()
    assert "\x1b[?25l" in out and out.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"
    assert "\x1b[1A" in out, "overwritten, not appended"


def test_live_restores_the_terminal_after_an_exception(screen: Screen) -> None:
    def interrupted() -> StudyStatus:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        console.live(interrupted, lambda: False, seconds=0)
    assert screen.getvalue().rstrip().endswith("\x1b[?25h")


def test_best_configuration_studies_and_status(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_best(PARAMS, 0.70423, "accuracy", 7)
    console.show_studies([STATUS])
    console.show_studies([])
    console.show_status(STATUS)
    out = capsys.readouterr().out
    assert "3.2e-05" in out and "9 of 16" in out and "No studies yet" in out and "\x1b" not in out


def test_messages_are_escaped_and_labeled(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    console.note(f"[bold]{long}\x1b[31m")
    console.warn("[w]")
    console.error("[e]")
    printed = capsys.readouterr()
    assert printed.out == f"[bold]{long}\N{REPLACEMENT CHARACTER}[31m\n"
    assert printed.err == "Warning: [w]\nError: [e]\n"


def test_emit_prints_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    text = json.dumps({"a": "[red]:smile:" * 30})
    console.emit(text)
    assert capsys.readouterr().out == text + "\n"


def test_progress_in_a_pipe_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("Reading [data]", 2) as advance:
        advance()
    assert capsys.readouterr().err == "Reading [data] …\n"


def test_progress_in_a_terminal_is_a_bar(screen: Screen) -> None:
    with console.progress("Reading [data]", 2) as advance:
        advance(2)
    assert "Reading [data]" in screen.getvalue() and "2/2" in screen.getvalue()


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    console.warn("with color")
    monkeypatch.setenv("NO_COLOR", "1")
    console.warn("without")
    colored, plain = capsys.readouterr().err.splitlines()
    assert "\x1b[33m" in colored and "\x1b[3" not in plain


def test_importing_the_console_imports_nothing_heavy() -> None:
    code = (
        "import sys, hpo.reporting.console.console\n"
        "print([name for name in ('rich', 'torch', 'optuna', 'plotly') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


ASCII_OUTPUT = """
from hpo.reporting.console import console
console.note("0.9 ± 0.1 – “é” → ü 日 █")
console.error("wrong … ±")
console.emit("– done")
console.show_studies([])
"""


@pytest.mark.parametrize("changed", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_ascii_output_is_degraded_and_not_an_error(changed: dict[str, str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    command = [sys.executable, "-c", ASCII_OUTPUT.encode("ascii", "backslashreplace").decode()]
    done = subprocess.run(command, env=environment | changed, capture_output=True, check=True)
    assert b"0.9 +/- 0.1 - " in done.stdout and b"-> u ? #" in done.stdout and b"- done" in done.stdout
    assert b"Error: wrong ... +/-" in done.stderr


def test_no_columns_do_not_swallow_the_output(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    console.note("read this")
    assert "read this" in capsys.readouterr().out
