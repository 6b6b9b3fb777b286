"""The examples in the docstrings of `hpo.core.format` are its tests."""

import doctest

from hpo.core import format as format_


def test_docstring_examples_hold() -> None:
    results = doctest.testmod(format_)
    assert results.attempted == 8 and results.failed == 0
