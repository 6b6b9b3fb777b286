"""A label column as classes: types, order, and what is refused."""

from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features

from hpo.data.formats.objects.rows import MIXED
from hpo.data.labels.classes import Classes, read_classes
from hpo.errors import DataError


def read(labels: list[Any], features: Features | None = None) -> Classes:
    return read_classes({"train": Dataset.from_dict({"y": labels}, features=features)}, "y", {"train": "d.csv"})


@pytest.mark.parametrize(
    ("labels", "names", "ids"),
    [
        (["b", "a", " b "], ("a", "b"), [1, 0, 1]),
        ([1, 0, 2], ("0", "1", "2"), [1, 0, 2]),
        (["10", "2"], ("2", "10"), [1, 0]),
        (["1.0", "3e0"], ("1", "3"), [0, 1]),
        ([1.0, 2.0], ("1", "2"), [0, 1]),  # ids as pandas stores them beside a missing one
        (["01", "10"], ("01", "10"), [0, 1]),  # as integers they would lose their spelling
        (["+1", "-1"], ("+1", "-1"), [0, 1]),
        (["NA", "US"], ("NA", "US"), [0, 1]),
        ([True, False], ("False", "True"), [1, 0]),
    ],
)
def test_labels_are_converted_and_ordered(labels: list[Any], names: tuple[str, ...], ids: list[int]) -> None:
    found = read(labels)
    assert (found.names, found.ids["train"]) == (names, ids)


def test_class_label_keeps_its_order_without_absent_names() -> None:
    found = read([2, 0], Features({"y": ClassLabel(names=["z", "unused", "a"])}))
    assert (found.names, found.ids["train"]) == (("z", "a"), [1, 0])


def test_gaps_and_case_are_noted() -> None:
    assert read([2, 10]).notes == ("ids with gaps (2, 10) renumbered from 0 to 1; their names are kept",)
    assert read(["Yes", "yes"]).notes == ("classes 'Yes' and 'yes' differ only in case: kept as two",)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "", None], r"d\.csv, column 'y': 2 of 3 rows without a label \(rows 2, 3"),
        ([None, None], "2 of 2 rows without a label"),
        (["1", "nan", "2"], "1 of 3 rows without a label"),
        ([0.5, 1.0], "row 1: 0.5 is not a whole number"),
        (["1", "2.5"], "row 2: 2.5 is not a whole number"),
        (["1", "spam", "2"], r"mixed type: 2 numbers \(1 in row 1\), 1 word \(spam in row 2\)"),
        ([0, -3], r"1 negative id, such as -3 \(row 2"),
        ([-100, -100], "every label is -100"),
        ([["a"], ["b"]], "needs one label.*multi-label-classification"),
    ],
)
def test_unusable_labels_raise_data_error(labels: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(labels)


def test_mixed_json_column_raises_with_an_example_of_each_type() -> None:
    import pyarrow as pa

    rows = Dataset(pa.table({"y": pa.array([{"type": "int", "json": "1"}, {"type": "str", "json": '"1"'}], MIXED)}))
    with pytest.raises(DataError, match=r'1 whole number \(1 in row 1\), 1 word \("1" in row 2\)'):
        read_classes({"train": rows}, "y", {"train": "d.jsonl"})


def test_names_that_differ_by_a_letter_are_noted() -> None:
    rows = Dataset.from_dict({"y": ["positive", "postive", "negative", "class_1", "class_2", "-"]})
    notes = read_classes({"train": rows}, "y", {"train": "d.csv"}).notes
    assert [note.partition(" differ")[0] for note in notes if "letter" in note] == ["classes 'positive' and 'postive'"]
    assert any("class '-' often marks" in note for note in notes)
