"""Several labels per row: forms, order of the classes, and what is refused."""

from typing import Any

import pytest
from datasets import Dataset

from hpo.data.labels.multi_label import (
    check_label_sets,
    find_delimiter,
    holds_delimited,
    join_columns,
    rarest_label,
    read_label_sets,
)
from hpo.errors import DataError


def read(labels: list[Any], delimiter: str | None = None) -> tuple[list[list[int]], tuple[str, ...], list[str]]:
    rows = {"train": Dataset.from_dict({"y": labels})}
    vectors, names, notes = read_label_sets(rows, "y", {"train": "d.csv"}, delimiter)
    return vectors["train"], names, notes


@pytest.mark.parametrize(
    ("labels", "delimiter"),
    [([["b", "a", "b"], [], ["a"]], None), (["b|a", None, "a"], None), (["b and a", "", "a"], " and ")],
)
def test_lists_and_delimited_texts_become_vectors(labels: list[Any], delimiter: str | None) -> None:
    vectors, names, notes = read(labels, delimiter)
    assert (vectors, names) == ([[1, 1], [0, 0], [1, 0]], ("a", "b"))
    assert notes[-1] == "rows without any label: 1 in train"


def test_numbers_are_ordered_as_numbers_before_words() -> None:
    assert read([["10", "x"], ["9"]])[1] == ("9", "10", "x")


@pytest.mark.parametrize(
    ("texts", "delimiter"),
    [(["a|b", "b", "a"], "|"), (["a, b", "b", "a"], ","), (["a", "b"], None), (["one, two", "three, four"], None)],
)
def test_delimiter_is_detected_where_the_labels_recur(texts: list[str], delimiter: str | None) -> None:
    assert find_delimiter(texts) == delimiter


@pytest.mark.parametrize(
    ("labels", "message"), [(["a", "b"], r"d\.csv, column 'y': one label a row"), ([["a"], None], "labels in row 2")]
)
def test_single_or_missing_labels_raise_data_error(labels: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(labels)


def test_flag_columns_are_joined() -> None:
    rows = Dataset.from_dict({"text": ["x", "y"], "a": ["yes", ""], "b": [1.0, 0.0]})
    assert join_columns(rows, ["b", "a"], "d.csv").to_dict() == {"text": ["x", "y"], "labels": [["b", "a"], []]}
    with pytest.raises(DataError, match="column 'a', row 1: '2' is neither 0 nor 1"):
        join_columns(Dataset.from_dict({"a": [2]}), ["a"], "d.csv")
    with pytest.raises(DataError, match="no column 'c'"):
        join_columns(rows, ["c"], "d.csv")


def test_classes_are_checked() -> None:
    train, test = Dataset.from_dict({"label": [[1, 0], [1, 1], [0, 0]]}), Dataset.from_dict({"label": [[1, 0]]})
    origins = {"train": "train.csv", "test": "test.csv"}
    assert check_label_sets({"train": train, "test": test}, ("a", "b"), origins) == ["1 class absent from test: b"]
    assert rarest_label(train) == [1, 2, 0]
    for rows, message in (([[0, 0]], r"test\.csv: no row has a label"), ([[0, 1]], "1 class that no training row has")):
        held_out = {"train": Dataset.from_dict({"label": [[1, 0], [1, 0]]}), "test": Dataset.from_dict({"label": rows})}
        with pytest.raises(DataError, match=message):
            check_label_sets(held_out, ("a", "b"), origins)


@pytest.mark.parametrize("kind", [float, int, bool, str])
def test_multi_hot_vectors_are_a_class_for_each_position(kind: type) -> None:
    flags = [[0, 0, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]]
    labels = [str(row) if kind is str else [kind(flag) for flag in row] for row in flags]
    vectors, names, notes = read(labels)
    assert (vectors, names) == (flags, ("0", "1", "2"))
    assert any("a 0 or 1 for each of 3 classes" in note for note in notes)


@pytest.mark.parametrize(
    "labels",
    [
        ["['a', 'b']", "['b']", "[]"],
        ['["a", "b"]', '["b"]', ""],
        ["['a' 'b']", "['b']", "[]"],
        ["[a, b]", "[b]", "[]"],
        [[{"name": "a", "id": 3}, {"name": "b", "id": 4}], [{"name": "b", "id": 4}], []],
    ],
)
def test_lists_written_as_text_and_objects_in_lists_are_names(labels: list[Any]) -> None:
    assert read(labels)[:2] == ([[1, 1], [0, 1], [0, 0]], ("a", "b"))


def test_lists_of_ids_are_no_vectors() -> None:
    assert read([[0, 1], [1], [2.0]])[:2] == ([[1, 1, 0], [0, 1, 0], [0, 0, 1]], ("0", "1", "2"))
    for labels, message in (([[0.2, 0.8], [0.5, 0.5]], "row 1: the label 0.2 is a fraction"), ([["a", None]], "empty")):
        with pytest.raises(DataError, match=message):
            read(labels)


@pytest.mark.parametrize(
    ("texts", "several"),
    [
        (["1", "4", "0,4", "0,3", "0", "3"], True),
        (["Boston, MA", "Dallas, TX", "Boston, MA"], False),
        (["a", "b", "a"], False),
    ],
)
def test_comma_lists_suggest_several_labels(texts: list[str], several: bool) -> None:
    assert holds_delimited(Dataset.from_dict({"y": texts}), "y") == several
