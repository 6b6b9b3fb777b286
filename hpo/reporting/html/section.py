"""A section of the report, and the text that may stand in a figure."""

import html
from dataclasses import dataclass, field, replace

import plotly.graph_objects as go


@dataclass(frozen=True)
class Section:
    """A part of the report: a sentence that says how to read it, figures, or why there are none."""

    title: str
    lead: str
    figures: list[go.Figure] = field(default_factory=list)
    skipped: str = ""
    rows: list[tuple[str, str, int]] = field(default_factory=list)  # true label, predicted label, count


def shorten(text: object, longest: int = 48) -> str:
    """Text for plotly, which reads some HTML in it: escaped, and short enough for an axis."""
    plain = " ".join(str(text).split())
    if len(plain) > longest:
        plain = f"{plain[: longest // 2]}…{plain[-longest // 2 + 1 :]}"
    return html.escape(plain, quote=False)


def empty_section(section: Section, reason: str) -> Section:
    """The section with the reason why it has no figure."""
    return replace(section, skipped=f"Nothing to draw: {reason}.")
