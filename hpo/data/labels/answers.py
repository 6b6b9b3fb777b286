"""Reading questions with the places of their answers in a context."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from hpo.core.format import count, row_numbers
from hpo.data.checks import read_texts
from hpo.data.columns import column_values, columns_named, group_column, missing_column
from hpo.errors import DataError

# Compared without case.
QUESTIONS = ("question", "query")
CONTEXTS = ("context", "passage", "paragraph", "document", "text")
ANSWERS = ("answers", "answer", "answer_text")
START = "answer_start"

Answers = dict[str, list[Any]]


def find_answer_columns(
    rows: Dataset, origin: str, text: str | tuple[str, ...] | None, label: str | None
) -> tuple[tuple[str, str, str], list[str]]:
    """The columns of question, context and answers: the named ones, else those recognised. Raises `DataError`."""
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
                f"{origin}: which column holds the {role}? Columns: {', '.join(rows.column_names)}. Name it in `{key}`."
            )
        if given is None:
            notes.append(f"{role}: recognized in column '{column}'")
        found.append(column)
    return (found[0], found[1], found[2]), notes


def read_questions(
    splits: Mapping[str, Dataset], columns: tuple[str, str, str], origins: Mapping[str, str], drop_empty: bool
) -> tuple[dict[str, Dataset], list[str]]:
    """Rows as text (the question), text_pair (the context) and label: the answers and where they begin; and notes.

    Answers stand as SQuAD has them, `{text: […], answer_start: […]}`, or as a text beside a column `answer_start`;
    without it the first place in the context where the text stands is taken. Raises `DataError` naming the file and
    row of an answer that is not there.
    """
    read, notes = {}, []
    for split, rows in splits.items():
        where = origins[split]
        questions, contexts = (read_texts(rows, name, where) for name in columns[:2])
        answers = _answers(rows, columns[2], contexts, where)
        without = [place for place, found in enumerate(answers) if not found["text"]]
        if without and not drop_empty:
            raise DataError(
                f"{where}: {len(without)} of {count(len(rows), 'question')} without an answer "
                f"({row_numbers([place + 1 for place in without])}). Questions that the context does not answer cannot "
                "be learnt yet: take them out, or set `data.drop_empty: true`."
            )
        gone = set(without)
        kept = [place for place in range(len(rows)) if place not in gone]
        if not kept:
            raise DataError(f"{where}: no question has an answer.")
        if without:
            notes.append(f"{len(without)} of {count(len(rows), 'question')} of {where} dropped: no answer")
        read[split] = Dataset.from_dict(
            {
                "text": [questions[place] for place in kept],
                "text_pair": [contexts[place] for place in kept],
                "label": [answers[place] for place in kept],
                **group_column(rows, kept),
            }
        )
    return read, notes


def _answers(rows: Dataset, column: str, contexts: Sequence[str], where: str) -> list[Answers]:
    given = column_values(rows, column)
    starts = column_values(rows, START) if START in rows.column_names else [None] * len(given)
    found: list[Answers] = []
    for row, (value, start, context) in enumerate(zip(given, starts, contexts, strict=True), 1):
        texts, places = _as_lists(value, start)
        if places is None:
            places = [context.find(text) for text in texts]
        for text, place in zip(texts, places, strict=True):
            if place < 0 or context[place : place + len(text)] != text:
                raise DataError(
                    f"{where}, row {row}: the answer {text[:60]!r} does not stand at character {place} of its context."
                    if place >= 0
                    else f"{where}, row {row}: the answer {text[:60]!r} does not stand in its context."
                )
        found.append({"text": texts, "answer_start": places})
    return found


def _as_lists(value: Any, start: Any) -> tuple[list[str], list[int] | None]:
    """The answers, and where they begin where that is told."""
    if isinstance(value, dict):
        texts, places = value.get("text"), value.get("answer_start")
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        texts, places = [one.get("text") for one in value], [one.get("answer_start") for one in value]
    else:
        texts, places = value, start
    texts = [texts] if isinstance(texts, str) else list(texts or ())
    texts = [str(text) for text in texts]
    if places is None or places == "" or (isinstance(places, list) and None in places):
        return [text for text in texts if text], None
    places = [int(place) for place in (places if isinstance(places, list) else [places])]
    pairs = [(text, place) for text, place in zip(texts, places, strict=True) if text]
    return [text for text, _ in pairs], [place for _, place in pairs]
