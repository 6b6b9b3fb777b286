"""Pairs of a text and its targets."""

from typing import Any

import pytest
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.data.labels.targets import find_target_columns, flatten_translations, read_pairs, recognize_pair
from hpo.errors import DataError

PAIRS = ((("article", "document"), ("summary",)),)


def test_languages_become_columns() -> None:
    rows = Dataset.from_dict({"id": [1], "translation": [{"en": "yes", "de": "ja"}]})
    assert flatten_translations(rows).to_dict() == {"en": ["yes"], "de": ["ja"], "id": [1]}
    plain = Dataset.from_dict({"translation": ["ja"]})
    assert flatten_translations(plain) is plain


@pytest.mark.parametrize(
    ("columns", "config", "found"),
    [
        (("id", "summary", "document"), {}, ("document", "summary")),
        (("en", "de"), {}, ("en", "de")),
        (("en", "de"), {"label": "en"}, ("de", "en")),
        (("en", "de", "fr"), {"text": "fr", "label": "en"}, ("fr", "en")),
        (("en", "de", "fr"), {}, None),
    ],
)
def test_columns_are_recognized(columns: tuple[str, ...], config: dict[str, str], found: Any) -> None:
    rows = Dataset.from_dict({name: ["x"] for name in columns})
    assert recognize_pair(rows, DataConfig(path="d.csv", **config), PAIRS) == found


def test_unknown_or_equal_columns_raise_data_error() -> None:
    rows = Dataset.from_dict({"en": ["x"], "de": ["y"], "fr": ["z"]})
    for config, message in (
        ({}, "which column is read"),
        ({"text": "en", "label": "en"}, "the text column too"),
        ({"text": ["en", "de"]}, r"data\.text: this task reads one column"),
        ({"label": "es"}, "no column 'es'"),
    ):
        with pytest.raises(DataError, match=message):
            find_target_columns(rows, "d.csv", DataConfig.model_validate({"path": "d.csv", **config}), PAIRS)


@pytest.mark.parametrize(("given", "read"), [("b", ["b"]), (["b", "", "c"], ["b", "c"])])
def test_targets_are_lists_of_texts(given: Any, read: list[str]) -> None:
    rows = Dataset.from_dict({"x": ["a"], "y": [given]})
    columns = find_target_columns(rows, "d.csv", DataConfig(path="d.csv", text="x", label="y"), PAIRS)
    assert read_pairs({"train": rows}, columns, {"train": "d.csv"}, False)[0]["train"]["label"][:] == [read]


def test_rows_without_text_or_target_are_refused_or_dropped() -> None:
    rows = Dataset.from_dict({"x": ["a", "", "c"], "y": [["b"], ["b"], []]})
    columns = find_target_columns(rows, "d.csv", DataConfig(path="d.csv", text="x", label="y"), PAIRS)
    found, notes = read_pairs({"train": rows}, columns, {"train": "d.csv"}, True)
    assert found["train"].to_dict() == {"text": ["a"], "label": [["b"]]} and "2 of 3 rows" in notes[0]
    with pytest.raises(DataError, match=r"2 of 3 rows with an empty text \(rows 2, 3"):
        read_pairs({"train": rows}, columns, {"train": "d.csv"}, False)
    numbers = Dataset.from_dict({"x": ["a"], "y": [[1]]})
    with pytest.raises(DataError, match=r"lists of other values than texts in 1 row \(row 1"):
        read_pairs({"train": numbers}, columns, {"train": "d.csv"}, False)
