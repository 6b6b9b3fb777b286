"""The live view: a panel that fits the terminal, and plain lines with what is new."""

import io
import re
import runpy
import xml.dom.minidom
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hpo.reporting.console.live_view import StatusLog, one_line, panel, seconds_left
from tests.reporting.statuses import STATUS


def render(renderable: Any, width: int = 80, color: bool = False) -> str:
    system: Any = "standard" if color else None
    page = Console(
        file=io.StringIO(), record=True, width=width, markup=False, color_system=system, force_terminal=color
    )
    page.print(renderable)
    return page.export_text(styles=color)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_panel_fits_the_width(width: int) -> None:
    shown = render(panel(STATUS), width)
    lines = shown.splitlines()
    assert all(len(line) <= width for line in lines)
    assert "9 of 16 trials" in shown and "0.704" in shown and "trial 7" in shown
    if width >= 80:
        for part in (
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
            assert part in shown
        assert "about 1 m 10 s left" in shown
        assert "checkpoints: s3://bucket cannot be written." in shown
        assert "checkpoints 1 MB · results 39 KB · cache of all studies 3.0 GB" in shown
    assert "\x1b" not in shown, "control characters of a study's name are replaced"


def test_svg_of_the_live_view_is_self_contained(tmp_path: Path) -> None:
    images = runpy.run_path(str(Path(__file__).parents[3] / "docs" / "images.py"))
    images["live_image"](STATUS, tmp_path / "live.svg")
    svg = (tmp_path / "live.svg").read_text(encoding="utf-8")
    assert "0.704" in svg and "url(http" not in svg and "href=" not in svg
    xml.dom.minidom.parseString(svg)


def test_bar_is_proportional_to_the_states() -> None:
    colored = render(panel(STATUS), 68, color=True)
    bar = next(line for line in colored.splitlines() if "━" in line)
    shares = dict(re.findall(r"\x1b\[(\d+)m(━+)", bar))
    # 64 characters for 16 trials: 6 complete, 2 pruned, 1 failed, 2 running, 5 to come
    assert {code: len(line) for code, line in shares.items()} == {"32": 24, "33": 8, "31": 4, "36": 8, "90": 20}


def test_time_left_is_the_minimum_of_trials_and_hours() -> None:
    assert seconds_left(STATUS) == pytest.approx(90 / 9 * 7)
    assert seconds_left(replace(STATUS, max_hours=100 / 3600)) == pytest.approx(10)
    assert seconds_left(replace(STATUS, counts={})) is None
    assert seconds_left(replace(STATUS, phase="confirm")) is None


def test_log_has_only_what_is_new() -> None:
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


def test_spread_between_folds_is_shown() -> None:
    folded = replace(STATUS, best_spread=0.02149)
    page = Console(record=True, file=io.StringIO(), width=100, markup=False)
    page.print(panel(folded))
    assert "best accuracy 0.704 ± 0.021 between folds  trial 7" in page.export_text()
    assert any(
        "best accuracy 0.704 ± 0.021 between folds in trial 7" in line for line in StatusLog().update(folded, now=0)
    )


def test_control_characters_are_replaced() -> None:
    assert one_line("a\n b\x1b[31m") == "a b\N{REPLACEMENT CHARACTER}[31m"
