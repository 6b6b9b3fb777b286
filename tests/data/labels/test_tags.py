"""Words and tags: columns, order of the tags, and what is refused."""

from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Sequence, Value

from hpo.data.labels.tags import Tags, are_entity_tags, check_tags, find_tag_columns, rarest_tag, read_tags
from hpo.errors import DataError


def read(words: list[Any], tags: list[Any], features: Features | None = None) -> Tags:
    rows = Dataset.from_dict({"words": words, "tags": tags}, features=features)
    return read_tags({"train": rows}, "words", "tags", {"train": "d.jsonl"})


def test_columns_of_lists_are_preferred() -> None:
    rows = Dataset.from_dict({"text": ["a b"], "words": [["a", "b"]], "ner_tags": [[0, 1]]})
    assert find_tag_columns(rows, "d.jsonl", None, None)[:2] == ("words", "ner_tags")
    with pytest.raises(DataError, match=r"which column holds the tags"):
        find_tag_columns(rows.remove_columns("ner_tags"), "d.jsonl", None, None)


@pytest.mark.parametrize("words", [[["New", "York"], ["I"]], ["New York", "I"]])
def test_tags_are_sorted_with_o_first(words: list[Any]) -> None:
    found = read(words, [["B-b", "I-a"], ["O"]])
    assert found.names == ("O", "I-a", "B-b")
    assert found.rows["train"].to_dict() == {"text": [["New", "York"], ["I"]], "label": [[2, 1], [0]]}


def test_class_label_keeps_its_order() -> None:
    features = Features({"words": Sequence(Value("string")), "tags": Sequence(ClassLabel(names=["Z", "unused", "A"]))})
    found = read([["a", "b"]], [[2, 0]], features)
    assert found.names == ("Z", "A") and found.rows["train"]["label"][:] == [[1, 0]]


def test_rows_without_words_are_dropped() -> None:
    found = read([["a"], [], [" "]], [["x"], [], ["y"]])
    assert found.rows["train"]["text"][:] == [["a"]] and found.notes == ("2 rows of d.jsonl dropped: no words",)


@pytest.mark.parametrize(
    ("words", "tags", "message"),
    [
        ([["a", "b"]], [["x"]], "row 1: 2 words in 'words' and 1 tag in 'tags'"),
        ([["a"], ["b"]], [["x"], [" "]], r"1 row with an empty tag \(row 2"),
        ([["a"], None], [["x"], ["y"]], "column 'words': empty values in row 2"),
        ([["a"]], [[0.5]], "column 'tags': contains fractions"),
        ([[]], [[]], "no row contains a word"),
        ([1], [["x"]], "column 'words': contains int64"),
    ],
)
def test_unusable_rows_raise_data_error(words: list[Any], tags: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(words, tags)


def test_unknown_tags_are_noted_and_a_single_tag_is_refused() -> None:
    train, test = (Dataset.from_dict({"label": labels}) for labels in ([[0, 1], [0]], [[0, 2]]))
    (note,) = check_tags({"train": train, "test": test}, ("O", "a", "b"), {"train": "train", "test": "test"})
    assert note == "test: no training row has b: it cannot be learned"
    assert rarest_tag(train) == [1, 0]
    with pytest.raises(DataError, match="every word has the tag 'O'"):
        check_tags({"train": train.select([1])}, ("O", "a"), {"train": "train"})


def test_tags_of_entities_are_recognized_in_any_scheme() -> None:
    assert are_entity_tags(["O", "I-LOC", "I-PER"]) and are_entity_tags(["O", "B-a", "L-a", "U-a"])
    assert not are_entity_tags(["NOUN", "VERB"]) and not are_entity_tags(["O", "0", "1"])


def test_unknown_prefixes_are_noted() -> None:
    rows = Dataset.from_dict({"w": [["a", "b", "c"]], "t": [["B-x", "Q-x", "O"]]})
    assert read_tags({"train": rows}, "w", "t", {"train": "d"}).notes[0].startswith("tags with an unknown prefix: Q-x:")
