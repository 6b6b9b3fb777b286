"""The examples in the docstrings of `hpo.core.wording` are its tests."""

import doctest

from hpo.core import wording


def test_examples() -> None:
    assert doctest.testmod(wording) == doctest.TestResults(failed=0, attempted=3)
