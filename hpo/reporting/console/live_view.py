"""The status of a running study, as a rich panel for terminals or as plain lines for pipes and logs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hpo.core.format import NOTHING, count, duration, number, parameters, score, size

if TYPE_CHECKING:
    from hpo.core.cache import DiskUse
    from hpo.storage.status import StudyStatus, WorkerStatus

PHASES = {
    "search": "searching",
    "confirm": "confirming the best",
    "retrain": "training the final model",
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
    "interrupted": "interrupted: `hpo run` resumes it",
}
STATES = {"complete": "green", "pruned": "yellow", "failed": "red", "running": "cyan", "waiting": "bright_black"}
# A local worker sends a heartbeat every few seconds; a late one is marked long before the lease expires.
LATE_HEARTBEAT_SECONDS = 20.0


def printable(text: object) -> str:
    """Return the text with control characters replaced: a study's name may contain an escape sequence."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in str(text))


def one_line(text: object) -> str:
    """Return the `printable` text on one line."""
    return printable(" ".join(str(text).split()))


def finished_trials(status: "StudyStatus") -> int:
    """Return the number of finished trials: complete, pruned or failed."""
    return sum(status.counts.get(state, 0) for state in ("complete", "pruned", "failed"))


def seconds_left(status: "StudyStatus") -> float | None:
    """Return the remaining seconds of the search, extrapolated and limited by the budget; None if unknown."""
    if status.phase != "search":
        return None
    elapsed, finished = status.hours_run * 3600, finished_trials(status)
    estimates = []
    if finished:
        estimates.append(elapsed / finished * max(status.max_trials - finished, 0))
    if status.max_hours is not None:
        estimates.append(max(status.max_hours * 3600 - elapsed, 0))
    return min(estimates, default=None)


def panel(status: "StudyStatus") -> RenderableType:
    """Return the live view of a study."""
    parts: list[RenderableType] = [TrialBar(status), _counts(status)]
    if status.confirm_total and status.phase in ("confirm", "retrain", "finished"):
        parts.append(Text(f"{status.confirm_done} of {status.confirm_total} confirming runs done"))
    parts += [Text(), *_best(status)]
    if status.workers:
        parts += [Text(), _workers(status.workers)]
    if status.failures:
        parts.append(Text())
    for trial, reason in status.failures:
        parts.append(Text(f"trial {trial} failed: {one_line(reason)}", "red", overflow="ellipsis", no_wrap=True))
    parts += [Text(one_line(warning), "yellow") for warning in status.warnings]
    if status.reason:
        parts += [Text(), Text(printable(status.reason), "red")]
    if status.disk is not None:
        parts += [Text(), _disk(status.disk)]
    state = [PHASES.get(status.phase, status.phase), duration(status.hours_run * 3600)]
    left = seconds_left(status)
    if left is not None:
        state.append(f"about {duration(left)} left")
    return Panel(
        Group(*parts),
        title=Text(one_line(status.name), "bold"),
        title_align="left",
        subtitle=Text(" · ".join(state)),
        subtitle_align="right",
        border_style="green" if status.phase == "finished" else "blue",
        padding=(0, 1),
    )


class TrialBar:
    """A bar over all trials of the budget, one color per state."""

    def __init__(self, status: "StudyStatus") -> None:
        self._status = status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        width, char = options.max_width, "#" if options.ascii_only else "━"
        total = max(self._status.max_trials, finished_trials(self._status), 1)
        line, end = Text(), 0
        for state in ("complete", "pruned", "failed", "running"):
            end = min(end + self._status.counts.get(state, 0), total)
            line.append(char * (round(width * end / total) - len(line)), STATES[state])
        line.append(("-" if options.ascii_only else char) * (width - len(line)), "bright_black")
        yield line


def _counts(status: "StudyStatus") -> Text:
    line = Text(f"{finished_trials(status)} of {count(status.max_trials, 'trial')}", "bold")
    for state, color in STATES.items():
        trials = status.counts.get(state, 0)
        if trials or state == "complete":
            line.append(" · ", "not bold").append(f"{trials} {state}", f"not bold {color}")
    if status.resumed:
        line.append(f" · {status.resumed} resumed", "not bold")
    return line


def _best(status: "StudyStatus") -> Iterator[Text]:
    if status.best_value is None:
        yield Text(f"no {one_line(status.metric)} yet: no trial has reported", "bright_black")
        return
    yield Text.assemble(
        f"best {one_line(status.metric)} ",
        (score(status.best_value), "bold green"),
        f"{fold_spread(status.best_spread)}  trial {status.best_trial}",
    )
    yield parameter_line(status.best_params)


def fold_spread(spread: float | None) -> str:
    """Return the standard deviation between folds, to follow their mean; empty without folds."""
    return "" if spread is None else f" ± {score(spread)} between folds"


def parameter_line(params: dict[str, object]) -> Text:
    """Return parameters on as few lines as possible, with dimmed names."""
    line = Text()
    for key, value in parameters(params).items():
        line.append(" · " if line else "", "bright_black")
        line.append(f"{key}\N{NO-BREAK SPACE}", "bright_black").append(one_line(value))
    return line


def _disk(use: "DiskUse") -> Text:
    """Return the disk usage of a study on this machine."""
    parts = {"checkpoints": use.checkpoints, "results": use.results}
    line = Text("disk here: " + " · ".join(f"{name} {size(used)}" for name, used in parts.items()), "bright_black")
    return line.append(f" · cache of all studies {size(use.cache)}")


def _workers(workers: "tuple[WorkerStatus, ...]") -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    for name in ("worker", "host", "device", "phase"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=24)
    for name in ("trial", "attempt", "epoch", "rung", "heartbeat"):
        table.add_column(name, justify="right", no_wrap=True)
    for worker in workers:
        late = worker.heartbeat_age > LATE_HEARTBEAT_SECONDS
        table.add_row(
            str(worker.worker_id),
            one_line(worker.host),
            one_line(worker.device),
            one_line(worker.phase),
            number(worker.trial),
            number(worker.attempt),
            epoch_of(worker),
            number(worker.step),
            Text(f"{_whole_seconds(worker.heartbeat_age)} ago", "yellow" if late else ""),
            style="bright_black" if worker.phase in ("gone", "waiting") else "",
        )
    return table


def _whole_seconds(age: float) -> str:
    return duration(age) if age >= 9.95 else f"{age:.0f} s"


def epoch_of(worker: "WorkerStatus") -> str:
    """Return the progress of a worker's trial: `1.5 of 4`."""
    if worker.trial is None or worker.epochs is None:
        return NOTHING
    return f"{worker.epoch or 0:.4g} of {worker.epochs}"


class StatusLog:
    """Converts successive statuses into plain lines: what is new, and a sign of life every `quiet_seconds`."""

    def __init__(self, quiet_seconds: float = 10.0) -> None:
        self._quiet_seconds = quiet_seconds
        self._last: StudyStatus | None = None
        self._last_line = 0.0

    def update(self, status: "StudyStatus", now: float) -> list[str]:
        """Return the lines to print for `status`, read at `now` (seconds of any clock)."""
        last, self._last = self._last, status
        lines = [*_new_phase(last, status), *_new_messages(last, status), *_new_best(last, status)]
        if last is None or finished_trials(last) != finished_trials(status):
            lines.append(_progress(status))
        if last is not None and last.confirm_done != status.confirm_done:
            lines.append(f"{status.confirm_done} of {status.confirm_total} confirming runs done")
        if not lines and now - self._last_line >= self._quiet_seconds:
            lines.append("; ".join(_running(status)) or _progress(status))
        if lines:
            self._last_line = now
        return lines


def _new_phase(last: "StudyStatus | None", status: "StudyStatus") -> Iterator[str]:
    if last is None or last.phase != status.phase:
        yield f"{one_line(status.name)}: {PHASES.get(status.phase, status.phase)}"


def _new_messages(last: "StudyStatus | None", status: "StudyStatus") -> Iterator[str]:
    """Yield the failures and warnings that the last status did not have."""
    failures, warnings = (set(last.failures), set(last.warnings)) if last else (set(), set())
    for trial, reason in status.failures:
        if (trial, reason) not in failures:
            yield f"trial {trial} failed: {one_line(reason)}"
    for warning in status.warnings:
        if warning not in warnings:
            yield one_line(warning)


def _new_best(last: "StudyStatus | None", status: "StudyStatus") -> Iterator[str]:
    if status.best_value is None or (last is not None and last.best_value == status.best_value):
        return
    value = f"{score(status.best_value)}{fold_spread(status.best_spread)}"
    best = f"best {one_line(status.metric)} {value} in trial {status.best_trial}"
    params = ", ".join(f"{key}={one_line(value)}" for key, value in parameters(status.best_params).items())
    yield f"{best}: {params}" if params else best


def _progress(status: "StudyStatus") -> str:
    states = ", ".join(f"{status.counts[state]} {state}" for state in STATES if status.counts.get(state))
    line = f"{finished_trials(status)} of {count(status.max_trials, 'trial')}"
    line += f" ({states})" if states else ""
    line += f" after {duration(status.hours_run * 3600)}"
    left = seconds_left(status)
    return line + (f", about {duration(left)} left" if left else "")


def _running(status: "StudyStatus") -> Iterator[str]:
    for worker in status.workers:
        if worker.trial is not None and worker.phase != "gone":
            epoch = f", epoch {epoch_of(worker)}" if worker.epochs else ""
            yield f"worker {worker.worker_id} on {one_line(worker.device)}: trial {worker.trial}{epoch}"
