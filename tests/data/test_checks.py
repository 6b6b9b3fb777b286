"""Checks on rows: empty texts, too few classes, and texts with several labels."""

import pytest
from datasets import Dataset

from hpo.data.checks import check_classes, count_conflicts, find_empty, read_texts
from hpo.errors import DataError

NAMES, ORIGINS = ("no", "yes", "maybe"), {"train": "train.csv", "test": "test.csv"}


def splits(**labels: list[int]) -> dict[str, Dataset]:
    return {
        split: Dataset.from_dict({"text": [f"text {row}" for row in range(len(given))], "label": given})
        for split, given in labels.items()
    }


def test_read_texts_returns_strings() -> None:
    assert read_texts(Dataset.from_dict({"text": ["a", None]}), "text", "d.csv") == ["a", ""]
    with pytest.raises(DataError, match=r"column 'n' contains int64, not text\. Columns of text: text"):
        read_texts(Dataset.from_dict({"n": [1], "text": ["a"]}), "n", "d.csv")


def test_find_empty_returns_rows_without_any_text() -> None:
    columns = [["a", " ", ""], ["", "b", "\n"]]
    assert find_empty(columns, "d.csv", drop=True) == ({2}, ["1 of 3 rows of d.csv dropped: empty text"])
    with pytest.raises(DataError, match=r"1 of 3 rows with an empty text \(row 3 below the header\)"):
        find_empty(columns, "d.csv", drop=False)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"train": [0]}, r"train\.csv: 1 row is too few"),
        ({"train": [1, 1]}, "every training label is 'yes'"),
        ({"train": [0, 1], "test": [0, 2]}, r"test\.csv: 1 class that no training row has.*maybe \(1 row\)"),
        ({"train": [0, 1], "test": [0, 0]}, r"test\.csv: every test label is 'no'"),
        ({"train": [0, 1], "validation": [1]}, r"validation, taken from train\.csv: every validation label is 'yes'"),
    ],
)
def test_unusable_classes_raise_data_error(labels: dict[str, list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_classes(splits(**labels), NAMES, ORIGINS)


def test_absent_classes_are_noted() -> None:
    assert check_classes(splits(train=[0, 1, 2], test=[0, 1, 2]), NAMES, ORIGINS) == []
    (note,) = check_classes(splits(train=[0, 1, 2], test=[0, 1]), NAMES, ORIGINS)
    assert note.startswith("1 class absent from test: maybe. For stratified splits")


def test_texts_with_several_labels_are_counted() -> None:
    rows = Dataset.from_dict({"text": ["a", "A ", "b"], "label": [0, 1, 1]})
    (note,) = count_conflicts({"train": rows, "test": rows.select([2])})
    assert note.startswith("1 text with more than one label (1 in train)")
