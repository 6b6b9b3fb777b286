"""Questions with choices, of which one is correct."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from datasets import Dataset

from hpo.data.checks import find_empty, read_texts
from hpo.data.columns import column_values, columns_named, find_text_columns, group_column, missing_column
from hpo.errors import DataError, enumerated

# Compared without case. A context stands before its question.
CONTEXTS = ("context", "passage", "article", "paragraph", "premise", "ctx", "sent1", "startphrase", "goal")
QUESTIONS = ("question", "question_stem", "query", "sent2")
LISTS = ("choices", "options", "endings", "answers")
NUMBER = r"[ _-]?(\d|[a-h])"
NUMBERED = re.compile("(choice|option|ending|solution|sol|answer)" + NUMBER, re.IGNORECASE)
LABELS = ("label", "answer", "answerkey", "answer_key", "answer_idx", "gold", "correct", "target")


@dataclass(frozen=True)
class ChoiceColumns:
    """The columns of the question (a context, a question, or both), of the choices, and of the right one.

    `choices` is one column of lists, or several columns, a choice each, whose names start with `prefix`.
    """

    question: tuple[str, ...]
    choices: tuple[str, ...]
    prefix: str
    label: str

    def by_role(self) -> dict[str, str]:
        """Return role (text, text_pair, choices, label) → column."""
        question = dict(zip(("text", "text_pair"), self.question, strict=False))
        return {**question, "choices": self.prefix, "label": self.label}


@dataclass(frozen=True)
class ChoiceRow:
    """A row as read: the question (one text, or a context and a question), its choices, and the label as written.

    `keys` are what the data calls the choices (A, B, …), where it names them.
    """

    question: tuple[str, ...]
    choices: list[str]
    keys: list[str]
    label: Any

    @property
    def text(self) -> str:
        """The context and the question as one text."""
        return " ".join(filter(None, self.question))

    @property
    def number(self) -> int | None:
        """The label as a whole number, where it is one."""
        label = self.label
        written = str(int(label) if isinstance(label, float) and label.is_integer() else label).strip()
        return int(written) if written.isdecimal() else None

    def correct(self, first: int) -> int | None:
        """Return the index of the right choice, given numbers counted from `first`; None where it is none of them."""
        written = str(self.label).strip()
        if written in self.keys:
            return self.keys.index(written)
        if self.number is not None:
            index = self.number - first
        elif written in self.choices:
            index = self.choices.index(written)
        else:
            index = "abcdefgh".find(written.lower()) if len(written) == 1 else -1
        return index if 0 <= index < len(self.choices) else None


def find_choice_columns(
    rows: Dataset, origin: str, text: str | tuple[str, ...] | None, label: str | None
) -> ChoiceColumns:
    """Return the named columns, else those recognized; a `label` of "" looks for none. Raises `DataError`."""
    named = (text,) if isinstance(text, str) else text or ()
    question = named[:-1] if len(named) > 1 else named
    for key, names in (("data.text", question), ("data.label", (label,) if label else ())):
        for name in names:
            if name not in rows.column_names:
                raise missing_column(key, name, rows.column_names, origin)
    prefix = _find_prefix(rows, origin, named)
    choices = choices_with_prefix(rows, prefix)
    if label is None:
        label = _find_label(rows, origin, choices)
    others = [*choices, *filter(None, [label])]
    if not named:
        question = tuple(name for names in (CONTEXTS, QUESTIONS) for name in columns_named(rows, names, others)[:1])
    question = question or find_text_columns(rows.remove_columns(others), origin, None)[:1]
    return ChoiceColumns(question, choices, prefix, label)


def _find_prefix(rows: Dataset, origin: str, named: Sequence[str]) -> str:
    """Return what the names of the columns of choices start with: as the last of `named`, else recognized."""
    prefixes = [match[1] for name in rows.column_names if (match := NUMBERED.fullmatch(name))]
    candidates = named[-1:] if len(named) > 1 else (*columns_named(rows, LISTS), *prefixes)
    prefix = next((name for name in candidates if choices_with_prefix(rows, name)), None)
    if prefix is None:
        raise DataError(
            f"{origin}: which columns hold the choices? Columns: {enumerated(rows.column_names)}. Name two in "
            "`data.text`: the question, and a column of lists, or what the names of several columns (choice0, "
            "choice1, …) start with."
        )
    return prefix


def _find_label(rows: Dataset, origin: str, choices: Sequence[str]) -> str:
    label = next(iter(columns_named(rows, LABELS, choices)), None)
    if label is None:
        raise DataError(
            f"{origin}: which column holds the right choice? Columns: {enumerated(rows.column_names)}. Name it in "
            "`data.label`."
        )
    return label


def choices_with_prefix(rows: Dataset, prefix: str) -> tuple[str, ...]:
    """Return the columns of choices: the column of lists called `prefix`, or several that start with it; else ()."""
    if prefix in rows.column_names:
        kind = rows.data.table.schema.field(prefix).type
        if pa.types.is_struct(kind) and {field.name for field in kind} >= {"text", "label"}:
            kind = kind.field("text").type  # ARC's: {text: […], label: [A, B, …]}
        return (prefix,) if pa.types.is_list(kind) or pa.types.is_large_list(kind) else ()
    numbered = re.compile(re.escape(prefix) + NUMBER, re.IGNORECASE)
    found = sorted(name for name in rows.column_names if numbered.fullmatch(name))
    return tuple(found) if len(found) > 1 else ()


def read_choice_rows(rows: Dataset, columns: ChoiceColumns, origin: str) -> list[ChoiceRow]:
    """Read the questions with their choices.

    Raises `DataError` naming a row with an empty choice, or fewer than two.
    """
    questions = zip(*(read_texts(rows, name, origin) for name in columns.question), strict=True)
    values: list[Any] = list(zip(*(column_values(rows, name) for name in columns.choices), strict=True))
    labels = column_values(rows, columns.label) if columns.label else [None] * len(rows)
    found = []
    for number, (question, value, label) in enumerate(zip(questions, values, labels, strict=True), 1):
        keys, choices = _choices(value[0] if len(value) == 1 else value)
        if len(choices) < 2 or not all(choice.strip() for choice in choices):
            raise DataError(f"{origin}, row {number}: an empty choice, or fewer than two.")
        found.append(ChoiceRow(question, choices, keys, label))
    return found


def _choices(value: Any) -> tuple[list[str], list[str]]:
    """Return the keys (empty where the data has none) and the choices of a row, without empty ones at the end."""
    keys = [str(key) for key in value["label"]] if isinstance(value, dict) else []
    choices = [str(choice or "") for choice in (value["text"] if isinstance(value, dict) else value or ())]
    while choices and not choices[-1].strip():  # of a row with fewer choices than there are columns
        choices.pop()
    return keys, choices


def read_choices(
    splits: Mapping[str, Dataset], columns: ChoiceColumns, origins: Mapping[str, str], drop_empty: bool
) -> tuple[dict[str, Dataset], list[str]]:
    """Read rows as text (the question), text_pair (the choices, padded with empty ones) and label (an index); notes.

    Raises `DataError` naming the row whose label is none of its choices.
    """
    read = {split: read_choice_rows(rows, columns, origins[split]) for split, rows in splits.items()}
    every = [row for rows in read.values() for row in rows]
    # Where no label is 0 and one equals the number of choices, labels count from 1.
    numbers = [row.number for row in every]
    first = int(all(numbers) and any(row.number == len(row.choices) for row in every))
    notes = [f"label: '{columns.label}' counts the choices from 1"] * first
    most = max(len(row.choices) for row in every)
    converted = {}
    for split, rows in read.items():
        empty, dropped = find_empty([[row.text for row in rows]], origins[split], drop_empty)
        notes += dropped
        kept = [index for index in range(len(rows)) if index not in empty]
        labels = [_correct(rows[index], first, columns.label, f"{origins[split]}, row {index + 1}") for index in kept]
        converted[split] = Dataset.from_dict(
            {
                "text": [rows[index].text for index in kept],
                "text_pair": pad_choices([rows[index].choices for index in kept], most),
                "label": labels,
                **group_column(splits[split], kept),
            }
        )
    return converted, notes


def _correct(row: ChoiceRow, first: int, column: str, where: str) -> int:
    correct = row.correct(first)
    if correct is None:
        raise DataError(
            f"{where}: '{column}' is {row.label!r}, which is none of its {len(row.choices)} choices: write a choice's "
            "number, its letter, or its text."
        )
    return correct


def pad_choices(rows: Sequence[list[str]], most: int) -> list[list[str]]:
    """Return the rows' choices, padded with empty ones to `most`."""
    return [[*row, *[""] * (most - len(row))] for row in rows]


def count_choices(choices: Sequence[str]) -> int:
    """Return the number of choices without the padding."""
    return sum(choice != "" for choice in choices)
