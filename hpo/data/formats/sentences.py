"""Tables with a word in each row, and the number of its sentence, as tagged texts are kept in spreadsheets."""

from typing import Any

import pyarrow as pa
from datasets import Dataset

from hpo.data.formats.source import Content

NUMBERS = ("sentence #", "sentence_id", "sentence id", "sent_id", "sentence_idx", "sentence_no", "sentence", "doc_id")
WORDS = ("word", "words", "token", "tokens")
TAGS = ("ner_tag", "ner_tags", "ner", "iob", "bio", "tag", "tags", "labels", "label")


def group_sentences(content: Content) -> Content:
    """Return rows of words as rows of sentences, with the columns `tokens` and `tags`; others as they are."""
    grouped = {split: _group(rows) for split, rows in content.splits.items()}
    if not all(grouped.values()):
        return content
    return Content({split: found for split, found in grouped.items() if found is not None}, content.notes)


def _group(rows: Dataset) -> Dataset | None:
    known = {name.lower(): name for name in rows.column_names}
    number, word, tag = (
        next((known[name] for name in names if name in known), None) for names in (NUMBERS, WORDS, TAGS)
    )
    if number is None or word is None or tag is None:
        return None
    numbers, words, tags = (rows.data.table.column(name).to_pylist() for name in (number, word, tag))
    tokens: list[list[Any]] = []
    tagged: list[list[Any]] = []
    current = None
    for given, one, its_tag in zip(numbers, words, tags, strict=True):
        if given not in (None, "", current) or not tokens:  # only the first word of a sentence may have its number
            current = given
            tokens.append([])
            tagged.append([])
        tokens[-1].append(str(one))
        tagged[-1].append(str(its_tag))
    return Dataset(pa.table({"tokens": tokens, "tags": tagged}))
