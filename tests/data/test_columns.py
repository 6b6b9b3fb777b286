"""Columns: recognized by name, or as the study names them."""

from typing import Any

import pytest
from datasets import Dataset

from hpo.data.columns import columns_named, find_columns, find_text_columns, group_column
from hpo.errors import DataError


def table(**columns: list[Any]) -> Dataset:
    return Dataset.from_dict(columns)


@pytest.mark.parametrize(
    ("columns", "text", "label"),
    [
        ({"Text": ["a"], "Label": ["x"]}, ("Text",), "Label"),
        ({"id": [1], "premise": ["a"], "hypothesis": ["b"], "label": [0]}, ("premise", "hypothesis"), "label"),
        ({"wording": ["a"], "label": [0]}, ("wording",), "label"),  # the only column of strings
        ({"text": ["a"], "kind": [0]}, ("text",), "kind"),  # the only other column
        ({"text": ["a", "b"], "label": [0, 1], "label_name": ["no", "yes"]}, ("text",), "label_name"),
    ],
)
def test_columns_are_recognized(columns: dict[str, list[Any]], text: tuple[str, ...], label: str) -> None:
    found = find_columns(table(**columns), "d.csv", None, None)
    assert (found.text, found.label) == (text, label)
    assert len(found.notes) == 2 and all("recognized" in note for note in found.notes)


def test_names_must_correspond_one_to_one_to_ids() -> None:
    rows = table(text=["a", "b", "c"], label=[0, 1, 1], label_name=["no", "yes", "perhaps"])
    assert find_columns(rows, "d.csv", None, None).label == "label"


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        ("txt", None, r"data\.text: d\.csv has no column 'txt'\. Did you mean 'text'"),
        ("text", "lable", r"data\.label: d\.csv has no column 'lable'"),
        ("text", "text", "the text column too"),
        (("text", "text"), "label", "named twice"),
        (("text", "label", "id"), "label", "not 3"),
    ],
)
def test_wrong_names_raise_data_error(text: Any, label: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_columns(table(id=[1], text=["a"], label=["x"]), "d.csv", text, label)


def test_unknown_columns_raise_data_error() -> None:
    with pytest.raises(DataError, match=r"which column holds the text\? Columns: 12, 34\..*add a header line"):
        find_text_columns(table(**{"12": ["a"], "34": ["b"]}), "d.csv", None)


def test_columns_named_ignores_case_and_follows_the_order_of_names() -> None:
    assert columns_named(table(Body=["a"], TEXT=["b"]), ("text", "body")) == ["TEXT", "Body"]
    assert columns_named(table(Body=["a"], TEXT=["b"]), ("text", "body"), besides=["TEXT"]) == ["Body"]


def test_group_column_is_copied_for_the_given_rows() -> None:
    assert group_column(table(text=["a"])) == {}
    assert group_column(table(_group=[4, 5, 6]), [2, 0]) == {"_group": [6, 4]}


@pytest.mark.parametrize(
    "names",
    [("text", "text_b"), ("#1 String", "#2 String"), ("title_left", "title_right"), ("desc_1", "desc_2"), ("q1", "q2")],
)
def test_two_texts_are_a_pair(names: tuple[str, str]) -> None:
    first, second = names
    found = find_columns(table(**{"id": ["x"], first: ["a"], second: ["b"], "label": [0]}), "d.csv", None, None)
    assert found.text == names


def test_one_text_beside_numbered_values_is_no_pair() -> None:
    rows = table(text=["a"], label_1=["x"], label_2=["y"], tag_1=["u"], tag_2=["v"], label=["z"])
    assert find_columns(rows, "d.csv", None, None).text == ("text",)
