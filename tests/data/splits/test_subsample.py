"""Subsamples: exact, stratified, deterministic, and a smaller one is part of every larger one."""

from collections import Counter

import pytest

from hpo.data.splits.subsample import sample_rows

STRATA = [0] * 10 + [1] * 5 + [2]


def test_shots_are_rows_of_each_class() -> None:
    rows = sample_rows(STRATA, 0, shots=3)
    assert Counter(STRATA[row] for row in rows) == {0: 3, 1: 3, 2: 1}
    assert rows == sorted(set(rows)) == sample_rows(STRATA, 0, shots=3) != sample_rows(STRATA, 1, shots=3)
    assert sample_rows(STRATA, 0, shots=99) == list(range(16))


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 1.0])
def test_fraction_is_of_each_class_and_at_least_one_row(fraction: float) -> None:
    rows = sample_rows(STRATA, 7, fraction)
    expected = {0.01: (1, 1, 1), 0.2: (2, 1, 1), 0.5: (5, 3, 1), 1.0: (10, 5, 1)}[fraction]
    assert Counter(STRATA[row] for row in rows) == dict(enumerate(expected))
    assert set(rows) <= set(sample_rows(STRATA, 7, min(1.0, fraction + 0.3)))
