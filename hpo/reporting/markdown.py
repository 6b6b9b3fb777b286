"""Markdown from texts that people and data hold: nothing in them is read as Markdown or HTML."""

import re
from collections.abc import Iterable, Sequence


def escape(text: object) -> str:
    """Text on one line with what Markdown and HTML would read made escape.

    >>> print(escape("<b> *x* learning_rate"))
    &lt;b&gt; \\*x\\* learning_rate
    """
    plain = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # An underscore inside a word (learning_rate) is no emphasis and may stay readable.
    return re.sub(r"(?<!\w)_|_(?!\w)|[\\`*\[\]|~#$]", r"\\\g<0>", plain)


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table of texts, made escape."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[cell if cell == "---" else escape(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in cells)


def code_block(text: str, language: str = "") -> str:
    """A block of code, fenced by more backticks than it holds."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"
