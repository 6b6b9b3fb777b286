"""Questions, and answers by their character offset in a context."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset

from hpo.core.format import count, row_numbers
from hpo.data.checks import read_texts
from hpo.data.columns import column_values, columns_named, group_column, holds_strings, missing_column
from hpo.errors import DataError, enumerated

# Compared without case.
QUESTIONS = ("question", "query")
CONTEXTS = ("context", "passage", "paragraph", "document", "text")
ANSWERS = ("answers", "answer", "answer_text")
START = "answer_start"

Answers = dict[str, list[Any]]


def find_answer_columns(
    rows: Dataset, origin: str, text: str | tuple[str, ...] | None, label: str | None
) -> tuple[tuple[str, str, str], list[str]]:
    """Return the columns of question, context and answers, named or recognized, and notes. Raises `DataError`."""
    if isinstance(text, str) or (text is not None and len(text) != 2):
        raise DataError("data.text: this task reads two columns: [question, context].")
    named = (*(text or (None, None)), label)
    found, notes = [], []
    roles = (
        ("question", "data.text", QUESTIONS),
        ("context", "data.text", CONTEXTS),
        ("answers", "data.label", ANSWERS),
    )
    for given, (role, key, names) in zip(named, roles, strict=True):
        if given is not None and given not in rows.column_names:
            raise missing_column(key, given, rows.column_names, origin)
        column = given or next(iter(columns_named(rows, names)), None)
        if column is None:
            raise DataError(
                f"{origin}: which column holds the {role}? Columns: {enumerated(rows.column_names)}. "
                f"Name it in `{key}`."
            )
        if given is None:
            notes.append(f"{role}: recognized in column '{column}'")
        found.append(column)
    return (found[0], found[1], found[2]), notes


def answers_in_contexts(rows: Dataset, columns: tuple[str, str, str]) -> bool:
    """Return whether answers are given with offsets, or most of the first 100 are parts of their contexts."""
    first = rows.select(range(min(100, len(rows))))
    if START in rows.column_names or not holds_strings(rows, columns[2]):
        kind = rows.data.table.schema.field(columns[2]).type
        return START in rows.column_names or pa.types.is_nested(kind)
    pairs = zip(column_values(first, columns[1]), column_values(first, columns[2]), strict=True)
    found = [bool(context) and answer in context for context, answer in pairs if answer]
    return sum(found) * 2 > len(found)  # `no` is a part of many contexts


def read_questions(
    splits: Mapping[str, Dataset], columns: tuple[str, str, str], origins: Mapping[str, str], drop_empty: bool
) -> tuple[dict[str, Dataset], list[str]]:
    """Return rows of text (the question), text_pair (the context) and label (answers and their offsets), and notes.

    Answers are as in SQuAD, `{text: […], answer_start: […]}`, or a text with a column `answer_start`; without offsets
    the first occurrence in the context is used. Raises `DataError` naming the file and row of an answer that is not
    in its context.
    """
    read, notes = {}, []
    for split, rows in splits.items():
        where = origins[split]
        questions, contexts = (read_texts(rows, name, where) for name in columns[:2])
        answers = _read_answers(rows, columns[2], contexts, where)
        kept = [index for index, found in enumerate(answers) if found["text"]]
        notes += _check_answered(len(rows), kept, where, drop_empty)
        read[split] = Dataset.from_dict(
            {
                "text": [questions[index] for index in kept],
                "text_pair": [contexts[index] for index in kept],
                "label": [answers[index] for index in kept],
                **group_column(rows, kept),
            }
        )
    return read, notes


def _check_answered(rows: int, kept: Sequence[int], where: str, drop_empty: bool) -> list[str]:
    """Return a note on questions without an answer, those not in `kept`. Raises `DataError` unless `drop_empty`."""
    without = sorted(set(range(rows)) - set(kept))
    share = f"{len(without)} of {count(rows, 'question')}"
    if without and not drop_empty:
        raise DataError(
            f"{where}: {share} without an answer ({row_numbers([index + 1 for index in without])}). Unanswerable "
            "questions are not supported: remove them, or set `data.drop_empty: true`."
        )
    if not kept:
        raise DataError(f"{where}: no question has an answer.")
    return [f"{share} of {where} dropped: no answer"] if without else []


def _read_answers(rows: Dataset, column: str, contexts: Sequence[str], where: str) -> list[Answers]:
    given = column_values(rows, column)
    starts = column_values(rows, START) if START in rows.column_names else [None] * len(given)
    found: list[Answers] = []
    for row, (value, start, context) in enumerate(zip(given, starts, contexts, strict=True), 1):
        texts, offsets = _spans(value, start, f"{where}, row {row}")
        if offsets is None:
            offsets = [context.find(text) for text in texts]
        for text, offset in zip(texts, offsets, strict=True):
            _check_span(text, offset, context, f"{where}, row {row}")
        found.append({"text": texts, "answer_start": offsets})
    return found


def _check_span(text: str, offset: int, context: str, where: str) -> None:
    if offset < 0:
        raise DataError(f"{where}: the answer {text[:60]!r} is not in its context.")
    if context[offset : offset + len(text)] != text:
        raise DataError(f"{where}: the answer {text[:60]!r} is not at character {offset} of its context.")


def _spans(value: Any, start: Any, where: str) -> tuple[list[str], list[int] | None]:
    """Return the non-empty answers of a row, and their offsets where they are given."""
    found, starts = _detect_form(value, start)
    if isinstance(found, bool):
        raise DataError(
            f"{where}: the answer is {str(found).lower()}, not a part of the context. Yes/no questions are "
            "pairs of texts to classify: set `task: text-classification`, and name the two texts and the label."
        )
    texts = [str(text) for text in found or ()] if found is None or isinstance(found, list) else [str(found)]
    offsets = _convert_offsets(starts)
    if offsets is None:
        return [text for text in texts if text], None
    if len(texts) != len(offsets):
        raise DataError(f"{where}: {count(len(texts), 'answer')} and {count(len(offsets), 'answer_start')}.")
    pairs = [(text, offset) for text, offset in zip(texts, offsets, strict=True) if text]
    return [text for text, _ in pairs], [offset for _, offset in pairs]


def _detect_form(value: Any, start: Any) -> tuple[Any, Any]:
    """Return the texts and offsets of SQuAD's dict of lists, of a list of dicts, or of a value and its `start`."""
    if isinstance(value, dict):
        return value.get("text"), value.get(START)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [one.get("text") for one in value], [one.get(START) for one in value]
    return value, start


def _convert_offsets(starts: Any) -> list[int] | None:
    if starts is None or starts == "" or (isinstance(starts, list) and None in starts):
        return None
    return [int(start) for start in (starts if isinstance(starts, list) else [starts])]
