"""What a person sees: plain lines in pipes, a live panel in terminals, and names that steer nothing."""

import io
import json
import re
import runpy
import subprocess
import sys
import xml.dom.minidom
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hpo.core.cache import DiskUse
from hpo.core.format import duration, number, parameters
from hpo.reporting.console import console
from hpo.reporting.console.live_view import StatusLog, panel, seconds_left
from hpo.storage.status import StudyStatus, WorkerStatus

PARAMS = {
    "model": "bért-3x128 [red]",
    "learning_rate": 3.2182e-05,
    "frozen_layers": 1,
    "frozen_share": 0.3,
    "dropout": None,
}
STATUS = StudyStatus(
    name="quick [red]start\x1b[31m 学",
    metric="accuracy",
    direction="maximize",
    phase="search",
    counts={"running": 2, "waiting": 0, "complete": 6, "pruned": 2, "failed": 1},
    max_trials=16,
    max_hours=None,
    hours_run=90 / 3600,
    best_trial=7,
    best_value=0.70423,
    best_params=PARAMS,
    workers=(
        WorkerStatus(
            1, "box", 11, "cuda:0", "search", trial=9, step=2, epoch=1.5, epochs=4, attempt=2, heartbeat_age=1.0
        ),
        WorkerStatus(2, "box", 12, "cuda:1", "search", trial=10, heartbeat_age=31.0),
    ),
    failures=((3, "Diverged: the loss became NaN [bold] at step 12"),),
    warnings=("checkpoints: s3://bucket cannot be written.",),
    disk=DiskUse(checkpoints=1_500_000, results=40_000, cache=3 * 2**30),
)
CONFIRMED = [
    {
        "trial": 7,
        "params": PARAMS,
        "values": {"1": 0.70, "2": 0.71},
        "mean": 0.705,
        "std": 0.007,
        "search_value": 0.704,
    },
    {
        "trial": 4,
        "params": PARAMS,
        "values": {"1": 0.68, "2": 0.70},
        "mean": 0.690,
        "std": 0.014,
        "search_value": 0.712,
    },
]
RESULT: dict[str, Any] = {
    "winner": CONFIRMED[0],
    "confirmed": CONFIRMED,
    "defaults": {"trial": 1, "value": 0.68, "params": PARAMS},
    "test": {"metrics": {"accuracy": 0.7123, "loss": 0.9}, "interval": [0.68, 0.74], "rows": 1000, "seen": 2},
    "baseline": {"name": "TF-IDF + logistic regression", "value": 0.655},
    "seconds": {"search": 200.0, "confirm": 30.0},
    "model_dir": "studies/runs/quick/final",
}


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rich reads from the environment may not decide a test."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """The terminal that the console writes to."""
    screen = Screen()
    terminal = Console(file=screen, width=80, markup=False)
    monkeypatch.setattr(console, "_console", lambda stderr=False: terminal)
    return screen


def render(renderable: Any, width: int = 80, colour: bool = False) -> str:
    system: Any = "standard" if colour else None
    page = Console(
        file=io.StringIO(), record=True, width=width, markup=False, color_system=system, force_terminal=colour
    )
    page.print(renderable)
    return page.export_text(styles=colour)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_live_panel_fits_and_tells_what_matters(width: int) -> None:
    shown = render(panel(STATUS), width)
    lines = shown.splitlines()
    assert all(len(line) <= width for line in lines)
    assert "9 of 16 trials" in shown and "0.704" in shown and "trial 7" in shown
    if width >= 80:
        for told in (
            "quick [red]start",
            "[bold]",
            "1.5 of 4",
            "cuda:1",
            "3.2e-05",
            "31 s ago",
            "1 s ago",
            "box",
            "1 m 30 s",
            "2 pruned",
        ):
            assert told in shown
        assert "about 1 m 10 s left" in shown
        assert "checkpoints: s3://bucket cannot be written." in shown
        assert "checkpoints 1 MB · results 39 KB · cache of all studies 3.0 GB" in shown
    assert "\x1b" not in shown, "a study's name may not steer the terminal"


def test_picture_of_the_live_view_loads_nothing(tmp_path: Path) -> None:
    pictures = runpy.run_path(str(Path(__file__).parents[3] / "docs" / "pictures.py"))
    pictures["live_picture"](STATUS, tmp_path / "live.svg")
    svg = (tmp_path / "live.svg").read_text(encoding="utf-8")
    assert "0.704" in svg and "url(http" not in svg and "href=" not in svg
    xml.dom.minidom.parseString(svg)


def test_bar_has_a_share_of_each_state() -> None:
    coloured = render(panel(STATUS), 68, colour=True)
    bar = next(line for line in coloured.splitlines() if "━" in line)
    shares = dict(re.findall(r"\x1b\[(\d+)m(━+)", bar))
    # 64 characters for 16 trials: 6 complete, 2 pruned, 1 failed, 2 running, 5 to come
    assert {code: len(line) for code, line in shares.items()} == {"32": 24, "33": 8, "31": 4, "36": 8, "90": 20}


def test_time_left_is_the_tighter_of_trials_and_hours() -> None:
    assert seconds_left(STATUS) == pytest.approx(90 / 9 * 7)
    assert seconds_left(replace(STATUS, max_hours=100 / 3600)) == pytest.approx(10)
    assert seconds_left(replace(STATUS, counts={})) is None
    assert seconds_left(replace(STATUS, phase="confirm")) is None


def test_lines_tell_only_what_is_new() -> None:
    lines = StatusLog(quiet_seconds=10)
    first = lines.update(STATUS, now=0)
    assert any("searching" in line for line in first) and any("best accuracy 0.704" in line for line in first)
    assert STATUS.warnings[0] in first
    assert lines.update(STATUS, now=1) == []
    assert lines.update(STATUS, now=11) == ["worker 1 on cuda:0: trial 9, epoch 1.5 of 4; worker 2 on cuda:1: trial 10"]
    more = replace(STATUS, counts={**STATUS.counts, "complete": 7})
    (line,) = lines.update(more, now=12)
    assert line.startswith("10 of 16 trials (7 complete, 2 pruned, 1 failed, 2 running) after 1 m 30 s")
    failed = replace(more, failures=((11, "out of memory"), *more.failures))
    assert lines.update(failed, now=13) == ["trial 11 failed: out of memory"]
    confirming = replace(failed, phase="confirm", confirm_total=6)
    assert "confirming the best" in lines.update(confirming, now=14)[0]
    assert lines.update(replace(confirming, confirm_done=1), now=15) == ["1 of 6 confirming runs done"]


def test_of_folds_it_is_told_how_far_they_lie_apart() -> None:
    folded = replace(STATUS, best_spread=0.02149)
    page = Console(record=True, file=io.StringIO(), width=100, markup=False)
    page.print(panel(folded))
    assert "best accuracy 0.704 ± 0.021 between folds  trial 7" in page.export_text()
    assert any(
        "best accuracy 0.704 ± 0.021 between folds in trial 7" in line for line in StatusLog().update(folded, now=0)
    )


@pytest.mark.parametrize("force_color", ["", "1"])
def test_live_in_a_pipe_is_plain_lines(
    force_color: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if force_color:  # CI systems set it for colours, not for a moving cursor
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
    assert "\x1b[1A" in out, "drawn over, not below"


def test_live_gives_the_terminal_back_when_reading_fails(screen: Screen) -> None:
    def interrupted() -> StudyStatus:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        console.live(interrupted, lambda: False, seconds=0)
    assert screen.getvalue().rstrip().endswith("\x1b[?25h")


def test_result_shows_winner_comparison_test_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_result(RESULT, "accuracy", [("hpo predict 'a text'", "classify a text"), ("hpo report", "the report")])
    out = capsys.readouterr().out
    for told in (
        "Winner: trial 7",
        "bért-3x128 [red]",
        "0.705 ± 0.007",
        "winner +0.025",
        "0.712 (95 % interval 0.680 to 0.740, 1,000 rows), test seen 2×",
        "0.655 TF-IDF + logistic regression",
        "studies/runs/quick/final",
        "hpo predict 'a text'  classify a text",
    ):
        assert told in out
    assert "\x1b" not in out


def test_result_without_test_split_defaults_or_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_result({**RESULT, "test": None, "baseline": None, "defaults": None}, "accuracy")
    assert "test accuracy" not in capsys.readouterr().out


def test_plan(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"sizes": {"train": 4000, "test": 1000}, "labels": ["a", "[b]"], "notes": ["12 rows dropped"]}
    model = {"model": "tiny", "architecture": "bert", "parameters": 1_412_000, "layers": 3, "max_length": 64}
    console.show_plan("quick", data, [{**model, "seconds_per_epoch": 3.3}], {"search": 200, "confirm": 20}, ["careful"])
    told = capsys.readouterr()
    for part in ("4,000 train, 1,000 test", "2: a, [b]", "12 rows dropped", "1.4 M", "3.3 s", "about 3 m 40 s"):
        assert part in told.out
    assert told.err == "Warning: careful\n"


def test_best_studies_and_status(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_best(PARAMS, 0.70423, "accuracy", 7)
    console.show_studies([STATUS])
    console.show_studies([])
    console.show_status(STATUS)
    out = capsys.readouterr().out
    assert "3.2e-05" in out and "9 of 16" in out and "No studies yet" in out and "\x1b" not in out


def test_predictions_in_a_pipe_are_tab_separated(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"label": "x", "score": 0.9, "text": "a\tb\nc"}, {"label": ["y", "z"], "score": [0.55, 0.7], "text": "d"}]
    console.show_predictions(rows)
    assert capsys.readouterr().out == "x\t0.900\ta b c\ny, z\t0.550, 0.700\td\n"
    console.show_predictions([{"entities": [{"text": "New York", "label": "place"}], "text": ["New", "York"]}])
    assert capsys.readouterr().out == '{"text": "New York", "label": "place"}\tNew, York\n'


def test_messages(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    console.note(f"[bold]{long}\x1b[31m")
    console.warn("[w]")
    console.error("[e]")
    told = capsys.readouterr()
    assert told.out == f"[bold]{long}\N{REPLACEMENT CHARACTER}[31m\n"
    assert told.err == "Warning: [w]\nError: [e]\n"


def test_emit_is_untouched(capsys: pytest.CaptureFixture[str]) -> None:
    text = json.dumps({"a": "[red]:smile:" * 30})
    console.emit(text)
    assert capsys.readouterr().out == text + "\n"


def test_progress_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("Reading [data]", 2) as advance:
        advance()
    assert capsys.readouterr().err == "Reading [data] …\n"


def test_progress_in_a_terminal(screen: Screen) -> None:
    with console.progress("Reading [data]", 2) as advance:
        advance(2)
    assert "Reading [data]" in screen.getvalue() and "2/2" in screen.getvalue()


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    console.warn("with colour")
    monkeypatch.setenv("NO_COLOR", "1")
    console.warn("without")
    coloured, plain = capsys.readouterr().err.splitlines()
    assert "\x1b[33m" in coloured and "\x1b[3" not in plain


def test_numbers_are_for_people() -> None:
    assert [number(value) for value in (0, 0.0, 3.2182e-05, 12_345, 1e9, True, "x", float("nan"))] == [
        "0",
        "0",
        "3.2e-05",
        "12,345",
        "1.0e+09",
        "True",
        "x",
        "nan",
    ]
    assert [duration(value) for value in (0.04, 9.96, 59.6, 3599.6, 90_000)] == [
        "0.0 s",
        "10 s",
        "1 m 00 s",
        "1 h 00 m",
        "1 d 1 h",
    ]
    assert parameters({"learning_rate": 1e-5, **PARAMS})["model"] == PARAMS["model"]
    assert list(parameters(PARAMS)) == ["model", "learning_rate", "frozen_layers"]


def test_importing_the_console_loads_nothing_heavy() -> None:
    code = (
        "import sys, hpo.reporting.console.console\n"
        "print([name for name in ('rich', 'torch', 'optuna', 'plotly') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
