"""A section of the report, and the escaping of text in figures."""

import html
from dataclasses import dataclass, field, replace

import plotly.graph_objects as go


@dataclass(frozen=True)
class Section:
    """A part of the report: how to read it, its figures, or the reason why there are none."""

    title: str
    lead: str
    figures: list[go.Figure] = field(default_factory=list)
    skipped: str = ""
    rows: list[tuple[str, str, int]] = field(default_factory=list)  # true label, predicted label, count


def shorten(text: object, longest: int = 48) -> str:
    """Return a text for plotly, which interprets some HTML: escaped, and abbreviated to `longest` characters."""
    plain = " ".join(str(text).split())
    if len(plain) > longest:
        plain = f"{plain[: longest // 2]}…{plain[-longest // 2 + 1 :]}"
    return html.escape(plain, quote=False)


def empty_section(section: Section, reason: str) -> Section:
    """Return the section with the reason why it has no figure."""
    return replace(section, skipped=f"No figure: {reason}.")
