"""Markdown with texts from users and data, escaped so that nothing in them is read as Markdown or HTML."""

import re
from collections.abc import Iterable, Sequence


def escape(text: object) -> str:
    """Return a text on one line with the special characters of Markdown and HTML escaped.

    >>> print(escape("<b> *x* learning_rate"))
    &lt;b&gt; \\*x\\* learning_rate
    """
    plain = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # An underscore inside a word (learning_rate) is not emphasis, and is more readable unescaped.
    return re.sub(r"(?<!\w)_|_(?!\w)|[\\`*\[\]|~#$]", r"\\\g<0>", plain)


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table of escaped texts."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[cell if cell == "---" else escape(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in cells)


def code_block(text: str, language: str = "") -> str:
    """Return a code block, fenced by more backticks than it contains."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"
