"""All output to a terminal, a notebook or a pipe; no other file prints.

Names and texts come from users and data, so markup is disabled and control characters are replaced. rich is imported
late, since `hpo --help` does not need it.
"""

import codecs
import io
import logging
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hpo.core.format import count, duration, number, parameters, score
from hpo.errors.redact import redact

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hpo.storage.records.final_model import FinalModel
    from hpo.storage.records.study import Ranking
    from hpo.storage.status import StudyStatus

TABLE_WIDTH_IN_A_PIPE, NARROWEST = 140, 20
PLAIN = "hpo-plain"  # the name of the encodings' error handler
_ASCII = {"–": "-", "—": "-", "−": "-", "±": "+/-", "×": "x", "→": "->", "≤": "<=", "≥": ">=", "“": '"', "”": '"'}
_ASCII |= {"‘": "'", "’": "'", "·": "*", "•": "*", "█": "#", "━": "-", "µ": "u", "✓": "+", "✗": "x"}

_quiet = 0  # blocks of `quiet` that are open, in any thread


@contextmanager
def quiet() -> Iterator[None]:
    """Print nothing inside the block, whichever thread prints; what is logged by `hpo.worker` is not printed either."""
    global _quiet
    handler, logger = logging.NullHandler(), logging.getLogger("hpo")
    logger.addHandler(handler)
    _quiet += 1
    try:
        yield
    finally:
        _quiet -= 1
        logger.removeHandler(handler)


def _console(stderr: bool = False) -> "Console":
    """Return a console for the current stream; rich respects NO_COLOR and COLUMNS."""
    from rich.console import Console

    encode_all()
    console = Console(stderr=stderr, quiet=_quiet > 0, markup=False, emoji=False, highlight=False)
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) < NARROWEST:
        console.width = NARROWEST  # with COLUMNS=0 rich prints nothing
    elif not console.is_terminal and not columns.isdigit():
        console.width = TABLE_WIDTH_IN_A_PIPE
    return console


def encode_all() -> None:
    """Print what the encoding of stdout or stderr lacks (in the C locale: all but ASCII) as ASCII, not as an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != PLAIN and not stream.encoding.startswith("utf"):
            stream.reconfigure(errors=PLAIN)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII for the characters that cannot be encoded: an encoding's error handler."""
    assert isinstance(error, UnicodeEncodeError)
    shown = ""
    for char in error.object[error.start : error.end]:
        letters = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
        shown += _ASCII.get(char) or letters or ("-" if unicodedata.name(char, "").startswith("BOX") else "?")
    return shown, error.end


codecs.register_error(PLAIN, _plain)


def show(*renderables: "RenderableType") -> None:
    """Print rich renderables and strings, one below the other; strings are not wrapped."""
    console = _console()
    for renderable in renderables:
        console.print(renderable, soft_wrap=isinstance(renderable, str))


def as_text(*renderables: "RenderableType") -> str:
    """Return rich renderables as plain text, one below the other: for a `repr`."""
    from rich.console import Console

    page = Console(file=io.StringIO(), width=TABLE_WIDTH_IN_A_PIPE, markup=False, emoji=False, highlight=False)
    with page.capture() as captured:
        for renderable in renderables:
            page.print(renderable, soft_wrap=isinstance(renderable, str))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def emit(text: str) -> None:
    """Print text for another program (JSON, YAML, CSV) unchanged: not wrapped, colored or escaped."""
    encode_all()
    print(text)


def note(text: str) -> None:
    """Print an informational message."""
    from hpo.reporting.console.live_view import printable

    _console().print(printable(redact(text)), soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    _labeled("Warning", "yellow", text)


def error(text: str) -> None:
    """Print an error on stderr."""
    _labeled("Error", "bold red", text)


def ask(question: str) -> bool:
    """Ask the user for confirmation. Raises `ConfigError` where the input is closed, as in a batch job."""
    from hpo.errors import ConfigError
    from hpo.reporting.console.live_view import printable

    try:
        return input(f"{printable(question)} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        raise ConfigError("No answer: the input is closed. To confirm without a prompt: --yes") from None


def _labeled(label: str, style: str, text: str) -> None:
    from rich.text import Text

    from hpo.reporting.console.live_view import printable

    _console(stderr=True).print(Text.assemble((f"{label}: ", style), printable(redact(text))), soft_wrap=True)


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show the progress of something slow on stderr; yields `advance(steps=1)`.

    In a terminal a bar, or a spinner where `total` is None. Elsewhere a line at the start and, after two seconds or
    more, one at the end.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from hpo.reporting.console.live_view import one_line

    console, start = _console(stderr=True), time.monotonic()
    if not _can_redraw(console):
        console.print(f"{one_line(description)} …", soft_wrap=True)
        yield lambda steps=1: None
        if time.monotonic() - start >= 2:
            console.print(f"{one_line(description)}: done in {duration(time.monotonic() - start)}", soft_wrap=True)
        return
    counted = (BarColumn(), MofNCompleteColumn()) if total else ()
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), *counted, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(one_line(description), total=total)
        yield lambda steps=1: bar.advance(task, steps)


def live(
    read: "Callable[[], StudyStatus]",
    done: Callable[[], bool],
    seconds: float = 0.5,
    wait: Callable[[float], object] = time.sleep,
) -> None:
    """Follow a study until `done()`: a live panel in a terminal or notebook, plain lines elsewhere.

    `read` is called every `seconds`, between which `wait` waits, and a last time when it is done. Its exceptions
    propagate, after the terminal is restored.
    """
    console = _console()
    with _view(console) as update:
        while not done():
            update(read())
            wait(seconds)
        update(read())


@contextmanager
def _view(console: "Console") -> "Iterator[Callable[[StudyStatus], None]]":
    """Yield the function that shows the next status on this console."""
    from rich.live import Live

    from hpo.reporting.console.live_view import StatusLog, panel

    if console.is_jupyter:
        yield _notebook_view()
    elif _can_redraw(console):
        with Live(console=console, auto_refresh=False) as view:
            yield lambda status: view.update(panel(status), refresh=True)
    else:
        lines = StatusLog()

        def update(status: "StudyStatus") -> None:
            for line in lines.update(status, time.monotonic()):
                console.print(line, soft_wrap=True)

        yield update


def _can_redraw(console: "Console") -> bool:
    """Return whether lines can be overwritten: with FORCE_COLOR, rich treats also a log file as a terminal."""
    return console.is_interactive and not console.is_jupyter and console.file.isatty()


def _notebook_view() -> "Callable[[StudyStatus], None]":
    """Return a function that updates one output cell; rich's own Live needs ipywidgets for that."""
    from IPython.display import HTML, display  # type: ignore[import-not-found,unused-ignore]
    from rich.console import Console

    from hpo.reporting.console.live_view import panel

    handle = display(HTML(""), display_id=True)
    pre = '<pre style="font-family:Menlo,Consolas,monospace;line-height:1.2">{code}</pre>'

    def update(status: "StudyStatus") -> None:
        page = Console(record=True, file=io.StringIO(), width=100, markup=False, emoji=False, force_jupyter=False)
        page.print(panel(status))
        handle.update(HTML(page.export_html(inline_styles=True, code_format=pre)))

    return update


def show_status(status: "StudyStatus") -> None:
    """Print the live view once."""
    from hpo.reporting.console.live_view import panel

    show(panel(status))


def show_studies(rows: "Sequence[StudyStatus]") -> None:
    """Print one line per study, for `hpo list`."""
    from hpo.reporting.console.live_view import PHASES, finished_trials, one_line
    from hpo.reporting.console.tables import new_table

    if not rows:
        note("No studies yet. Start one with: hpo init DATA")
        return
    table = new_table("study", "metric", "phase", trials="right", best="right", time="right")
    for row in rows:
        trials = f"{finished_trials(row)} of {row.max_trials}"
        best, ran = score(row.best_value), duration(row.hours_run * 3600)
        table.add_row(one_line(row.name), one_line(row.metric), PHASES.get(row.phase, row.phase), trials, best, ran)
    show(table)


def show_best(params: Mapping[str, Any], value: float | None, metric: str, trial: int | None = None) -> None:
    """Print the best configuration, one parameter per line."""
    from rich.text import Text

    from hpo.reporting.console.live_view import one_line
    from hpo.reporting.console.tables import key_value_table

    origin = f"  trial {trial}" if trial is not None else ""
    headline = Text.assemble(f"{one_line(metric)} ", (score(value), "bold green"), origin)
    show(headline, key_value_table(parameters(params)))


def show_plan(
    study: str,
    data: Mapping[str, Any],
    models: Sequence[Mapping[str, Any]],
    forecast: Mapping[str, float] | None = None,
    warnings: Sequence[str] = (),
) -> None:
    """Print the plan of a study (see `plan_parts`), and its warnings on stderr."""
    from hpo.reporting.console.plan_view import plan_parts

    show(*plan_parts(study, data, models, forecast))
    for line in warnings:
        warn(line)


def show_ranking(ranking: "Ranking") -> None:
    """Print the models of `hpo rank`, best first."""
    from hpo.reporting.console.live_view import one_line
    from hpo.reporting.console.tables import millions, new_table

    names = ("parameters", "layers", "score", "seconds")
    table = new_table("", "model", **dict.fromkeys(names, "right"))
    for rank, ranked in enumerate(ranking.models, 1):
        shown = score(ranked.score) if ranked.score is not None else one_line(ranked.reason)
        sizes = millions(ranked.parameters), number(ranked.layers)
        table.add_row(str(rank), one_line(ranked.model), *sizes, shown, f"{ranked.seconds:.1f}")
    show(table, f"\nscore: share of the labels' variance explained by frozen features, on {count(ranking.rows, 'row')}")


def show_result(result: "FinalModel", commands: Sequence[tuple[str, str]] = ()) -> None:
    """Print the result of a study; `commands` are pairs of a command and what it does."""
    from hpo.reporting.console.result_view import result_parts

    show(*result_parts(result, commands))


def show_replay(
    steps: Sequence[int], recorded: Sequence[float], replayed: Sequence[float], not_applied: Sequence[str]
) -> None:
    """Print a trial's recorded values beside those of its replay, and warn of settings that could not be reproduced."""
    from hpo.reporting.console.tables import new_table

    table = new_table("rung", recorded="right", replayed="right", difference="right")
    for step, before, now in zip(steps, recorded, replayed, strict=True):
        table.add_row(str(step), f"{before:.6f}", f"{now:.6f}", number(now - before))
    show(table)
    for line in not_applied:
        warn(f"not as recorded: {line}")


def show_predictions(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print predictions, each followed by its input; tab-separated in a pipe, with entities as JSON."""
    from hpo.reporting.console.prediction_view import prediction_table, tab_separated

    if rows and _console().file.isatty():
        show(prediction_table(rows))
    elif rows:
        emit(tab_separated(rows))
