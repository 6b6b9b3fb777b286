"""What the end of a study looks like: its winner, how that compares, and what the final model takes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from hpo.core.format import NOTHING, count, duration, interval, parameters, score
from hpo.reporting.console.live_view import one_line
from hpo.reporting.console.tables import key_value_table, millions, new_table


def result_parts(
    result: Mapping[str, Any], metric: str, commands: Sequence[tuple[str, str]] = ()
) -> Iterator[RenderableType]:
    """Winner, comparison, test score, folder, and what to do next; a text is not to be folded: a path can be copied."""
    winner = result["winner"]
    yield Text(f"\nWinner: trial {winner['trial']}", "bold green")
    yield from (key_value_table(parameters(winner["params"])), "", _confirmed(result, one_line(metric)), "")
    yield _comparison(result, one_line(metric))
    yield from _remarks(result)
    seconds = result.get("seconds") or {}
    if seconds:
        parts = (f"{one_line(phase)} {duration(spent)}" for phase, spent in seconds.items() if spent is not None)
        yield f"time: {', '.join(parts)}"
    if result.get("model_dir"):
        yield f"\nfinal model: {one_line(result['model_dir'])}"
    if commands:
        width = max(len(command) for command, _ in commands)
        yield from ("", *(f"  {one_line(command):{width}}  {one_line(what)}" for command, what in commands))


def _confirmed(result: Mapping[str, Any], metric: str) -> Table:
    """The best configurations on fresh seeds, best first, beside what the search thought of them."""
    rows = new_table("trial", "model", **{"in the search": "right", "fresh seeds": "right", "seeds": "right"})
    for place, entry in enumerate(result["confirmed"]):
        rows.add_row(
            str(entry["trial"]),
            one_line(entry["params"].get("model", NOTHING)),
            score(entry.get("search_value")),
            f"{score(entry['mean'])} ± {score(entry.get('std'))}",
            str(len(entry.get("values", {}))),
            style="bold" if place == 0 else "",
        )
    rows.title = f"{metric} on validation"
    rows.title_justify, rows.title_style = "left", "bright_black"
    return rows


def _comparison(result: Mapping[str, Any], metric: str) -> Table:
    """The winner beside the defaults (validation), and the final model beside the baseline (test)."""
    rows: dict[str, str] = {}
    winner, defaults = result["winner"], result.get("defaults")
    if defaults:
        gain = winner["mean"] - defaults["value"]
        rows["best defaults"] = (
            f"{score(defaults['value'])} on validation (trial {defaults['trial']}; winner {gain:+.3f})"
        )
    test, baseline = result.get("test"), result.get("baseline")
    if test:
        bounds = interval(test.get("interval"))
        value = score(test["metrics"].get(metric))
        within = f" (95 % interval {bounds}, {count(test['rows'], 'row')})" if bounds else ""
        rows[f"test {metric}"] = f"{value}{within}, test seen {test.get('seen', 1)}×"
    if baseline:
        rows["baseline"] = f"{score(baseline['value'])} {one_line(baseline['name'])}"
    return key_value_table(rows)


def _remarks(result: Mapping[str, Any]) -> Iterator[str]:
    """How well the ranking agreed, what the final model takes, and who was not chosen for what they take."""
    ranking, taken = result.get("ranking"), result.get("footprint")
    if ranking and ranking["tau"] is not None:
        order = ", ".join(one_line(row["model"]) for row in ranking["models"])
        yield f"ranked before the search: {order}; Kendall's tau with the best of each: {ranking['tau']:+.2f}"
    if taken:
        latency = f", {taken['latency_ms']:.3g} ms an answer" if taken["latency_ms"] is not None else ""
        yield f"takes: {millions(taken['params'])} parameters, {taken['memory_mb']:.4g} MB{latency}"
    for entry in result["confirmed"]:
        if entry.get("broken"):
            yield f"not chosen: trial {entry['trial']} ({one_line(entry['params']['model'])}): {entry['broken']}"
    if result.get("broken"):
        yield f"measured once more, the final model is beyond the constraints: {result['broken']}"
