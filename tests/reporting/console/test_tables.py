"""The tables of the console."""

import io

from rich.console import Console
from rich.table import Table

from hpo.reporting.console.tables import key_value_table, millions, new_table


def lines(table: Table) -> list[str]:
    page = Console(file=io.StringIO(), width=60, record=True, markup=False)
    page.print(table)
    return [line.rstrip() for line in page.export_text().splitlines() if line.strip()]


def test_columns_have_their_justification() -> None:
    table = new_table("name", score="right")
    table.add_row("a", "0.5")
    assert lines(table)[0] == "name   score" and lines(table)[-1] == "a        0.5"


def test_names_and_values_are_escaped() -> None:
    assert lines(key_value_table({"model": "a\x1b[31m\nb"})) == ["model  a\N{REPLACEMENT CHARACTER}[31m b"]


def test_millions() -> None:
    assert (millions(1_412_000), millions(None)) == ("1.4 M", "–")
