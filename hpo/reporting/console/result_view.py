"""The result of a study: winner, comparison with defaults and baseline, footprint of the final model."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from hpo.core.format import NOTHING, count, duration, interval, parameters, score
from hpo.reporting.console.live_view import one_line
from hpo.reporting.console.tables import key_value_table, millions, new_table
from hpo.storage.records.final_model import FinalModel


def result_parts(result: FinalModel, commands: Sequence[tuple[str, str]] = ()) -> Iterator[RenderableType]:
    """Yield winner, comparison, test score, folder and `commands`; strings are not wrapped, so paths can be copied."""
    metric, winner = one_line(result.metric), result.winner
    yield Text(f"\nWinner: trial {winner.trial}", "bold green")
    yield from (key_value_table(parameters(winner.params)), "", _confirmed(result, metric), "")
    yield _comparison(result, metric)
    yield from _remarks(result)
    if result.seconds:
        yield f"time: {', '.join(f'{one_line(phase)} {duration(spent)}' for phase, spent in result.seconds.items())}"
    yield f"\nfinal model: {one_line(str(result.model_dir))}"
    if commands:
        width = max(len(command) for command, _ in commands)
        yield from ("", *(f"  {one_line(command):{width}}  {one_line(what)}" for command, what in commands))


def _confirmed(result: FinalModel, metric: str) -> Table:
    """Return the confirmed configurations, best first, beside their values in the search."""
    rows = new_table("trial", "model", **{"in the search": "right", "fresh seeds": "right", "seeds": "right"})
    for position, entry in enumerate(result.confirmed):
        rows.add_row(
            str(entry.trial),
            one_line(entry.params.get("model", NOTHING)),
            score(entry.search_value),
            f"{score(entry.mean)} ± {score(entry.std)}",
            str(len(entry.values)),
            style="bold" if position == 0 else "",
        )
    rows.title = f"{metric} on validation"
    rows.title_justify, rows.title_style = "left", "bright_black"
    return rows


def _comparison(result: FinalModel, metric: str) -> Table:
    """Return the winner beside the defaults (validation), and the final model beside the baseline (test)."""
    rows: dict[str, str] = {}
    defaults, test, baseline = result.defaults, result.test, result.baseline
    if defaults:
        gain = result.winner.mean - defaults.value
        rows["best defaults"] = f"{score(defaults.value)} on validation (trial {defaults.trial}; winner {gain:+.3f})"
    if test:
        bounds = interval(test.interval)
        within = f" (95 % interval {bounds}, {count(test.rows, 'row')})" if bounds else ""
        rows[f"test {metric}"] = f"{score(test.metrics.get(result.metric))}{within}, test evaluated {test.evaluations}×"
    if baseline:
        rows["baseline"] = f"{score(baseline.value)} {one_line(baseline.name)}"
    return key_value_table(rows)


def _remarks(result: FinalModel) -> Iterator[str]:
    """Yield how well the ranking agreed, the final model's footprint, and the models excluded by the constraints."""
    ranking, footprint = result.ranking, result.footprint
    if ranking and ranking.tau is not None:
        order = ", ".join(one_line(ranked.model) for ranked in ranking.models)
        yield f"ranked before the search: {order}; Kendall's tau with the best of each: {ranking.tau:+.2f}"
    if footprint:
        latency = f", {footprint.latency_ms:.3g} ms per prediction" if footprint.latency_ms is not None else ""
        yield f"footprint: {millions(footprint.params)} parameters, {footprint.memory_mb:.4g} MB{latency}"
    for entry in result.confirmed:
        if entry.violations:
            yield f"not chosen: trial {entry.trial} ({one_line(entry.params['model'])}): {entry.violations}"
    if result.violations:
        yield f"measured again, the final model exceeds the constraints: {result.violations}"
