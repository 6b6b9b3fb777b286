"""Text in figures: escaped and abbreviated."""

import re

from hpo.reporting.html.section import Section, empty_section, shorten


def test_shorten_keeps_both_ends() -> None:
    short = shorten("a" * 100 + "<end>")
    assert short.startswith("aaa") and short.endswith("&lt;end&gt;") and len(re.sub("&..;", "<", short)) <= 48


def test_empty_section_has_the_reason() -> None:
    assert empty_section(Section("Title", "lead"), "no trial").skipped == "No figure: no trial."
