"""Transcripts: normalized, with the letters of a model's vocabulary."""

import pytest
from datasets import Dataset

from hpo.data.labels.transcripts import normalize_transcript, read_transcripts, unknown_letters, vocabulary
from hpo.errors import DataError


def test_transcripts_are_normalized() -> None:
    assert normalize_transcript("It’s\ttime – GO!") == "it's time go"
    rows = {"train": Dataset.from_dict({"text": ["Go!", "go"]})}
    assert read_transcripts(rows, "text", {"train": "d.csv"}) == (
        {"train": ["go", "go"]},
        ["1 transcript of d.csv in lower case, without punctuation"],
    )


def test_empty_transcript_raises_data_error() -> None:
    rows = {"train": Dataset.from_dict({"text": ["go", "…"]})}
    with pytest.raises(DataError, match=r"1 transcript without a word \(row 2"):
        read_transcripts(rows, "text", {"train": "d.csv"})


def test_vocabulary_has_special_tokens_and_letters() -> None:
    known = vocabulary(["ba c", "a"])
    assert known == ["[PAD]", "[UNK]", "|", "a", "b", "c"]
    assert unknown_letters(["cab d"], known) == "d" and unknown_letters(["a b"], known) == ""
