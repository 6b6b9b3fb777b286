"""Markdown: nothing in a text is interpreted."""

from hpo.reporting.markdown import code_block, escape, table


def test_special_characters_are_escaped() -> None:
    assert escape("a\n# b | `c` [d](javascript:e)") == r"a \# b \| \`c\` \[d\](javascript:e)"
    assert table(("a",), [("x|y",)]).splitlines()[-1] == r"| x\|y |"
    assert code_block("```") == "````\n```\n````"
