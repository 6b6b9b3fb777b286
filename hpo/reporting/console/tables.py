"""How everything in the console is laid out: plain tables, and names with values."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from hpo.core.format import NOTHING
from hpo.reporting.console.live_view import one_line


def new_table(*left: str, **justify: Any) -> Table:
    """A table with plain heads: `left` columns, then columns by name with how they are justified."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for name in left:
        made.add_column(name, overflow="fold")
    for name, side in justify.items():
        made.add_column(name, justify=side, overflow="fold")
    return made


def key_value_table(values: Mapping[str, str]) -> Table:
    """Names and values, one pair a line."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(style="bright_black", no_wrap=True)
    made.add_column(overflow="fold")
    for key, value in values.items():
        made.add_row(one_line(key), one_line(value))
    return made


def millions(parameters: int | None) -> str:
    """A count of parameters."""
    return NOTHING if parameters is None else f"{parameters / 1e6:.1f} M"
