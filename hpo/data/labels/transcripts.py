"""Transcripts of audio clips, normalized to the characters that a speech model predicts."""

import unicodedata
from collections.abc import Mapping, Sequence

from datasets import Dataset

from hpo.core.format import count, first_few, row_numbers
from hpo.data.checks import read_texts
from hpo.errors import DataError

COLUMNS = ("transcript", "transcription", "transcripts", "sentence", "text", "normalized_text", "utterance")
MARKS = "'’"  # part of words, unlike other punctuation, which is not pronounced
PAD, UNKNOWN, SPACE = "[PAD]", "[UNK]", "|"


def normalize_transcript(text: str) -> str:
    """Return the text in lower case, without punctuation, with single spaces between words.

    >>> normalize_transcript("It's  time – GO!")
    "it's time go"
    """
    plain = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    spoken = "".join(" " if unicodedata.category(char)[0] in "PSZC" and char not in MARKS else char for char in plain)
    return " ".join(spoken.split())


def read_transcripts(
    splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the normalized transcripts of each split, and notes. Raises `DataError` naming the rows of empty ones."""
    read, notes = {}, []
    for split, rows in splits.items():
        given = read_texts(rows, column, origins[split])
        read[split] = [normalize_transcript(text) for text in given]
        empty = [row for row, text in enumerate(read[split], 1) if not text]
        if empty:
            raise DataError(
                f"{origins[split]}, column '{column}': {count(len(empty), 'transcript')} without a word "
                f"({row_numbers(empty)}). Remove these rows, or add their transcripts."
            )
        changed = sum(" ".join(one.split()) != other for one, other in zip(given, read[split], strict=True))
        if changed:
            notes.append(f"{count(changed, 'transcript')} of {origins[split]} in lower case, without punctuation")
    return read, notes


def vocabulary(transcripts: Sequence[str]) -> list[str]:
    """Return the tokens of a CTC model: padding (the blank), unknown, space, and each letter of `transcripts`."""
    letters = sorted({letter for text in transcripts for letter in text} - {" "})
    return [PAD, UNKNOWN, SPACE, *letters]


def unknown_letters(transcripts: Sequence[str], known: Sequence[str]) -> str:
    """Return the first few letters of `transcripts` that are not in the vocabulary `known`; empty if there are none."""
    return first_few(sorted({letter for text in transcripts for letter in text} - {" ", *known}))
