"""Predictions as a table in a terminal, or as tab-separated lines for another program."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from hpo.core.format import score
from hpo.reporting.console.live_view import one_line
from hpo.reporting.console.tables import new_table


def prediction_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return predictions as a table; tags are omitted, since the entities show them."""
    names = [name for name in rows[0] if name != "tags"]
    table = new_table(*names)
    for row in rows:
        table.add_row(*(one_line(_cell(row[name], _entity)) for name in names))
    return table


def tab_separated(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return predictions as tab-separated lines, with entities as JSON."""
    return "\n".join("\t".join(_cell(row[name], json.dumps) for name in rows[0]) for row in rows)


def _cell(value: Any, entity: Callable[[Any], str]) -> str:
    """Return a value as text: numbers rounded, several values separated by commas."""
    if isinstance(value, float):
        return score(value)
    if isinstance(value, list | tuple):
        return ", ".join(_cell(one, entity) for one in value)
    return entity(value) if isinstance(value, dict) else one_line(value)


def _entity(found: Mapping[str, Any]) -> str:
    return f"{found['text']} ({found['label']})"
