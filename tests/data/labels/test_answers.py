"""Answers in a context: every form of them, and what is refused."""

from typing import Any

import pytest
from datasets import Dataset

from hpo.data.labels.answers import answers_in_contexts, find_answer_columns, read_questions
from hpo.errors import DataError

CONTEXT = "Today Anna sings, and Anna dances."
COLUMNS = ("question", "context", "answers")


def read(*answers: Any, drop_empty: bool = False, **more: list[Any]) -> list[Any]:
    rows = {"question": ["who?"] * len(answers), "context": [CONTEXT] * len(answers), "answers": list(answers), **more}
    found, _ = read_questions({"train": Dataset.from_dict(rows)}, COLUMNS, {"train": "d.jsonl"}, drop_empty)
    return found["train"]["label"][:]


@pytest.mark.parametrize(
    ("answer", "more"),
    [
        ({"text": ["Anna"], "answer_start": [22]}, {}),
        ([{"text": "Anna", "answer_start": 22}], {}),
        ("Anna", {"answer_start": [22]}),
        ({"text": ["", "Anna"], "answer_start": [0, 22]}, {}),
    ],
)
def test_answers_with_offsets(answer: Any, more: dict[str, Any]) -> None:
    assert read(answer, **more) == [{"text": ["Anna"], "answer_start": [22]}]


@pytest.mark.parametrize("answer", ["Anna", ["Anna"], {"text": ["Anna"], "answer_start": None}])
def test_without_offsets_the_first_occurrence_is_used(answer: Any) -> None:
    assert read(answer) == [{"text": ["Anna"], "answer_start": [6]}]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"text": ["Anna"], "answer_start": [7]}, "row 1: the answer 'Anna' is not at character 7"),
        ("Carla", "row 1: the answer 'Carla' is not in its context"),
        ({"text": ["Anna", "Anna"], "answer_start": [6]}, "row 1: 2 answers and 1 answer_start"),
        (False, "row 1: the answer is false, .*`task: text-classification`"),
        (42, "row 1: the answer '42' is not in its context"),
        ("", r"1 of 1 question without an answer \(row 1"),
    ],
)
def test_wrong_answers_raise_data_error(answer: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(answer)


def test_unanswered_questions_are_dropped_on_request() -> None:
    assert read("Anna", "", drop_empty=True) == [{"text": ["Anna"], "answer_start": [6]}]
    with pytest.raises(DataError, match="no question has an answer"):
        read("", drop_empty=True)


def test_columns_are_recognized() -> None:
    rows = Dataset.from_dict({"Query": ["?"], "passage": ["a"], "answer": ["a"]})
    assert find_answer_columns(rows, "d.csv", None, None)[0] == ("Query", "passage", "answer")
    with pytest.raises(DataError, match=r"two columns: \[question, context\]"):
        find_answer_columns(rows, "d.csv", "Query", None)
    with pytest.raises(DataError, match=r"which column holds the context"):
        find_answer_columns(rows.remove_columns("passage"), "d.csv", None, None)


def test_labels_of_pairs_are_no_answers() -> None:
    columns = ("q", "c", "label")
    pair = {"q": ["who?", "when?"], "c": ["Ada did.", "At noon."]}
    assert not answers_in_contexts(Dataset.from_dict({**pair, "label": ["yes", "no"]}), columns)
    assert not answers_in_contexts(Dataset.from_dict({**pair, "label": [1, 0]}), columns)
    assert answers_in_contexts(Dataset.from_dict({**pair, "label": ["Ada", "noon"]}), columns)
