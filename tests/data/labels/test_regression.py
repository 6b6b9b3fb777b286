"""A label column as numbers."""

from typing import Any

import pytest
from datasets import Dataset

from hpo.data.columns import FOLD
from hpo.data.labels.regression import check_numbers, has_fractions, quantile_bins, read_numbers
from hpo.errors import DataError


def read(labels: list[Any]) -> list[float]:
    return read_numbers({"train": Dataset.from_dict({"y": labels})}, "y", {"train": "d.csv"})["train"]


def test_strings_and_integers_are_numbers() -> None:
    assert read([" 1.5", "2e1"]) == [1.5, 20.0]
    assert read([1, 2]) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1.5, None, float("nan")], r"2 of 3 rows without a number \(rows 2, 3"),
        (["1.5", "high"], "row 2: 'high' is not a finite number"),
        (["1.5", "inf"], "row 2: 'inf' is not a finite number"),
        ([[1.0]], "not a number a row"),
    ],
)
def test_other_values_raise_data_error(labels: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(labels)


@pytest.mark.parametrize(
    ("values", "found"), [([0.5, 1.0], True), (["0.5", ""], True), ([1.0, 2.0], False), (["a"], False), ([1], False)]
)
def test_fractions_are_detected(values: list[Any], found: bool) -> None:
    assert has_fractions(Dataset.from_dict({"y": values}), "y") is found


def test_constant_labels_raise_data_error() -> None:
    varied, constant = (Dataset.from_dict({"label": values, FOLD: [1, 1]}) for values in ([1.0, 2.0], [3.0, 3.0]))
    with pytest.raises(DataError, match=r"test\.csv: every label is 3"):
        check_numbers(
            {"train": varied, "validation": varied, "test": constant}, {"train": "train.csv", "test": "test.csv"}
        )
    folds = {"train": varied, "validation": Dataset.from_dict({"label": [3.0, 4.0, 3.0], FOLD: [0, 2, 0]})}
    with pytest.raises(DataError, match=r"every label of fold 1 \(2 rows\) is 3"):
        check_numbers(folds, {"train": "train.csv"})


def test_quantile_bins_are_deciles() -> None:
    assert quantile_bins([float(number) for number in range(20)]) == [number // 2 for number in range(20)]
