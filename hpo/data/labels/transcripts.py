"""Transcripts: what is said in a clip, as the letters that a speech model learns to write."""

import unicodedata
from collections.abc import Mapping, Sequence

from datasets import Dataset

from hpo.core.format import count, first_few, row_numbers
from hpo.data.checks import read_texts
from hpo.errors import DataError

COLUMNS = ("transcript", "transcription", "transcripts", "sentence", "text", "normalized_text", "utterance")
KEPT = "'’"  # a part of words; other punctuation cannot be heard
PAD, UNKNOWN, SPACE = "[PAD]", "[UNK]", "|"


def normalize_transcript(text: str) -> str:
    """Lower case, without punctuation, words one space apart.

    >>> normalize_transcript("It's  time – GO!")
    "it's time go"
    """
    plain = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    heard = "".join(" " if unicodedata.category(sign)[0] in "PSZC" and sign not in KEPT else sign for sign in plain)
    return " ".join(heard.split())


def read_transcripts(
    splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Each split's transcripts, normalised, and notes. Raises `DataError` naming rows in which nothing is said."""
    read, notes = {}, []
    for split, rows in splits.items():
        given = read_texts(rows, column, origins[split])
        read[split] = [normalize_transcript(text) for text in given]
        empty = [row for row, text in enumerate(read[split], 1) if not text]
        if empty:
            raise DataError(
                f"{origins[split]}, column '{column}': {count(len(empty), 'transcript')} without a word "
                f"({row_numbers(empty)}). Take these rows out, or write what is said."
            )
        changed = sum(" ".join(one.split()) != other for one, other in zip(given, read[split], strict=True))
        if changed:
            notes.append(f"{count(changed, 'transcript')} of {origins[split]} in lower case, without punctuation")
    return read, notes


def vocabulary(transcripts: Sequence[str]) -> list[str]:
    """What a model may write: nothing (CTC's blank), an unknown letter, a space, and each letter of `transcripts`."""
    letters = sorted({letter for text in transcripts for letter in text} - {" "})
    return [PAD, UNKNOWN, SPACE, *letters]


def unknown_letters(transcripts: Sequence[str], known: Sequence[str]) -> str:
    """The letters of `transcripts` that are not in the vocabulary `known`, the first few of them; empty: none."""
    return first_few(sorted({letter for text in transcripts for letter in text} - {" ", *known}))
