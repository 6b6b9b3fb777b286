"""The two tables of the console: plain ones with a header, and names with values."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from hpo.core.format import NOTHING
from hpo.reporting.console.live_view import one_line


def new_table(*left: str, **justify: Any) -> Table:
    """Return a table with the columns `left`, left-justified, then columns by name with their justification."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for name in left:
        table.add_column(name, overflow="fold")
    for name, side in justify.items():
        table.add_column(name, justify=side, overflow="fold")
    return table


def key_value_table(values: Mapping[str, str]) -> Table:
    """Return a table of names and values, one pair per line."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bright_black", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in values.items():
        table.add_row(one_line(key), one_line(value))
    return table


def millions(parameters: int | None) -> str:
    """Return a number of parameters in millions."""
    return NOTHING if parameters is None else f"{parameters / 1e6:.1f} M"
