"""Formatting: the examples in the docstrings of `hpo.core.format`, and the edge cases."""

import doctest

from hpo.core import format as format_
from hpo.core.format import duration, number, parameters


def test_docstring_examples_hold() -> None:
    results = doctest.testmod(format_)
    assert results.attempted == 8 and results.failed == 0


def test_numbers_and_durations_are_rounded() -> None:
    assert [number(value) for value in (0, 0.0, 3.2182e-05, 12_345, 1e9, True, "x", float("nan"))] == [
        "0",
        "0",
        "3.2e-05",
        "12,345",
        "1.0e+09",
        "True",
        "x",
        "nan",
    ]
    assert [duration(value) for value in (0.04, 9.96, 59.6, 3599.6, 90_000)] == [
        "0.0 s",
        "10 s",
        "1 m 00 s",
        "1 h 00 m",
        "1 d 1 h",
    ]


def test_parameters_have_the_model_first_and_no_unset_ones() -> None:
    params = {"learning_rate": 1e-5, "model": "m", "frozen_layers": 1, "frozen_share": 0.3, "dropout": None}
    assert list(parameters(params)) == ["model", "learning_rate", "frozen_layers"]
