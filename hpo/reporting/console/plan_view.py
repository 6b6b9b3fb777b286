"""The plan of a study: its data, its models, the time that it is expected to take."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from hpo.core.format import NOTHING, duration, number
from hpo.reporting.console.live_view import one_line
from hpo.reporting.console.tables import key_value_table, millions, new_table


def plan_parts(
    study: str,
    data: Mapping[str, Any],
    models: Sequence[Mapping[str, Any]],
    forecast: Mapping[str, float] | None = None,
) -> Iterator[RenderableType]:
    """Yield the data, a table of the models, and the forecast.

    `data` holds `sizes` (rows by split), `labels` and `notes`. Each of `models` holds `model`, `architecture`,
    `parameters` (a count), `layers`, `max_length` (tokens, or samples of audio) and `seconds_per_epoch` (None where it
    was not timed). `forecast` holds seconds by phase.
    """
    sizes = ", ".join(f"{rows:,} {split}" for split, rows in data["sizes"].items())
    labels = data["labels"]
    few = ", ".join(one_line(label) for label in labels[:8]) + (", …" if len(labels) > 8 else "")
    facts = {"study": study, "rows": sizes} | ({"classes": f"{len(labels)}: {few}"} if labels else {})
    yield key_value_table(facts)
    yield from (f"  {one_line(line)}" for line in data.get("notes", ()))
    yield ""
    columns = {"parameters": "right", "layers": "right", "max length": "right", "seconds per epoch": "right"}
    rows = new_table("model", "architecture", **columns)
    for row in models:
        rows.add_row(
            one_line(row["model"]),
            one_line(row.get("architecture", NOTHING)),
            millions(row.get("parameters")),
            number(row.get("layers")),
            number(row.get("max_length")),
            duration(row.get("seconds_per_epoch")),
        )
    yield rows
    if forecast:
        parts = ", ".join(f"{one_line(phase)} {duration(seconds)}" for phase, seconds in forecast.items())
        total = duration(sum(forecast.values()))
        yield Text.assemble("\nforecast: about ", (total, "bold"), f" ({parts})" if len(forecast) > 1 else "")
