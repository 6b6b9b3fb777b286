"""Questions with choices: every form of choices and labels, and what is refused."""

from typing import Any

import pytest
from datasets import Dataset

from hpo.data.labels.choices import count_choices, find_choice_columns, pad_choices, read_choices
from hpo.errors import DataError

QUESTION = "which is a color?"


def table(**columns: Any) -> Dataset:
    return Dataset.from_dict({name: [value] for name, value in {"question": QUESTION, **columns}.items()})


def read(*rows: dict[str, Any], drop_empty: bool = False) -> tuple[dict[str, Any], list[str]]:
    data = Dataset.from_list([{"question": QUESTION, **row} for row in rows])
    columns = find_choice_columns(data, "d.jsonl", None, None)
    found, notes = read_choices({"train": data}, columns, {"train": "d.jsonl"}, drop_empty)
    return found["train"].to_dict(), notes


@pytest.mark.parametrize(
    ("columns", "choices"),
    [
        ({"options": ["red", "dog"], "answer": 0}, ("options",)),
        ({"choices": {"text": ["red", "dog"], "label": ["A", "B"]}, "answerKey": "A"}, ("choices",)),
        ({"ending0": "red", "ending1": "dog", "label": 0}, ("ending0", "ending1")),
        ({"solution_a": "red", "solution_b": "dog", "gold": "a"}, ("solution_a", "solution_b")),
    ],
)
def test_columns_are_recognized(columns: dict[str, Any], choices: tuple[str, ...]) -> None:
    found = find_choice_columns(table(**columns), "d.jsonl", None, None)
    assert (found.question, found.choices, found.label) == (("question",), choices, list(columns)[-1])


def test_named_columns_and_unknown_ones() -> None:
    rows = table(passage="p", opt1="red", opt2="dog", right="red")
    found = find_choice_columns(rows, "d.jsonl", ("passage", "question", "opt"), "right")
    assert found.by_role() == {"text": "passage", "text_pair": "question", "choices": "opt", "label": "right"}
    with pytest.raises(DataError, match="which columns hold the choices"):
        find_choice_columns(rows, "d.jsonl", None, "right")
    with pytest.raises(DataError, match=r"data\.label: .* no column 'wrong'"):
        find_choice_columns(rows, "d.jsonl", ("question", "opt"), "wrong")
    with pytest.raises(DataError, match="which column holds the right choice"):
        find_choice_columns(rows, "d.jsonl", ("question", "opt"), None)


@pytest.mark.parametrize("label", [1, "1", 1.0, "b", "B", "dog"])
def test_label_is_a_number_a_letter_or_a_text(label: Any) -> None:
    assert read({"options": ["red", "dog", "up"], "answer": label})[0]["label"] == [1]


def test_numbers_are_counted_from_1_where_one_equals_the_number_of_choices() -> None:
    rows, notes = read({"options": ["red", "dog"], "answer": 2}, {"options": ["red", "dog"], "answer": 1})
    assert rows["label"] == [1, 0] and notes == ["label: 'answer' counts the choices from 1"]


def test_choices_are_padded() -> None:
    rows, _ = read({"options": ["a", "b", "c"], "answer": 0}, {"options": ["d", "e", ""], "answer": 1})
    assert rows["text_pair"] == [["a", "b", "c"], ["d", "e", ""]]
    assert pad_choices([["a"]], 2) == [["a", ""]] and count_choices(["a", "b", ""]) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"options": ["red", "dog"], "answer": "cat"}, "row 1: 'answer' is 'cat', which is none of its 2 choices"),
        ({"options": ["red"], "answer": 0}, "row 1: an empty choice, or fewer than two"),
        ({"options": ["", "dog"], "answer": 0}, "row 1: an empty choice"),
        ({"question": " ", "options": ["red", "dog"], "answer": 0}, r"1 of 1 row with an empty text \(row 1"),
    ],
)
def test_unusable_rows_raise_data_error(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(row)
