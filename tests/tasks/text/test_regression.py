"""Regression: reading and standardizing numbers, and the baseline."""

from typing import Any

import numpy as np
import pytest

from hpo.errors import DataError
from hpo.tasks.registry import get_task
from tests.tasks.small_data import Read, numbered


def test_labels_are_standardized_and_splits_stratified(read: Read) -> None:
    data = read("text-regression", numbered(*(float(n) for n in range(200)), key="score"))
    train = np.array(data.train["label"][:])
    assert train.mean() == pytest.approx(0, abs=1e-9) and train.std() == pytest.approx(1)
    mean, deviation = data.scale
    assert mean == pytest.approx(99.5, abs=3) and deviation == pytest.approx(57.7, abs=3)
    assert data.test is not None
    for rows in (data.validation, data.test):
        found = mean + deviation * np.array(rows["label"][:])
        assert np.allclose(found, np.round(found)) and abs(found.mean() - 99.5) < 12


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["1.5", "high", "2"], "row 2: 'high' is not a finite number"),
        ([1.5, None, 2.0], "1 of 3 rows without a number (row 2 below"),
        ([1.5, 1.5, 1.5], "every label is 1.5"),
        ([[1.0], [2.0]], "not a number a row"),
    ],
)
def test_invalid_number_raises(labels: list[Any], message: str, read: Read) -> None:
    with pytest.raises(DataError) as error:
        read("text-regression", numbered(*labels))
    assert message in str(error.value)


def test_pair_with_a_score_is_recognized(read: Read) -> None:
    rows = "sentence1,sentence2,score\n" + "".join(f"a {n},b {n},{n / 10}\n" for n in range(40))
    data = read("text-regression", rows, "d.csv")
    assert data.columns == {"text": "sentence1", "text_pair": "sentence2", "label": "score"}


def test_baseline_of_pairs_uses_shared_words(read: Read) -> None:
    words = "red green blue black white grey pink brown".split()
    rows = [
        {
            "text1": " ".join(words[n % 3 : n % 3 + 4]),
            "text2": " ".join(words[n % 5 : n % 5 + 4]) + f" no{n}",
            "score": s,
        }
        for n in range(120)
        for s in [4 - abs(n % 3 - n % 5) + 0.5]
    ]
    data = read("text-regression", rows)
    found = get_task("text-regression").baseline(data, "pearson")
    assert found is not None and found[0] == "TF-IDF + ridge regression" and found[1] > 0.9
