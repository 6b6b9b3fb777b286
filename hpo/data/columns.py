"""The columns of the texts and the label: those that the study names, or those recognized by their names."""

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from datasets import Dataset

from hpo.errors import DataError, did_you_mean, enumerated

# In the order of preference; compared without case.
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("text", "text_pair"),
    ("text", "text_b"),
    ("question", "answer"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
)
SECOND = ("_b", "_pair", "_2", "2")  # ends of the name of the second text of a pair
TEXTS = (
    *("text", "sentence", "content", "review", "document", "message", "comment", "tweet", "utterance", "abstract"),
    *("body", "description", "post", "question", "query", "prompt", "headline", "title", "sms", "input", "words"),
)
LABELS = (
    *("label", "labels", "label_name", "label_text", "gold_label", "class", "class_name", "category", "target"),
    *("intent", "sentiment", "emotion", "topic", "tag", "rating", "output", "y"),
    *("quality", "is_duplicate", "paraphrase", "entailment", "stance"),
    *("score", "similarity", "similarity_score", "relatedness_score"),
)
# Columns that hpo adds: the number of each row's group, from which folds are created; and each row's fold, from 0.
GROUP, FOLD = "_group", "_fold"
CLASS_NAMES = ("label_name", "label_text", "class_name", "category", "intent")


@dataclass(frozen=True)
class Columns:
    """The source columns of the one or two texts and of the label; `notes` name those that were recognized."""

    text: tuple[str, ...]
    label: str
    notes: tuple[str, ...] = ()

    def by_role(self) -> dict[str, str]:
        """Return role (text, text_pair, label) → column."""
        return {**dict(zip(("text", "text_pair"), self.text, strict=False)), "label": self.label}


def find_columns(rows: Dataset, origin: str, text: str | tuple[str, ...] | None, label: str | None) -> Columns:
    """Return the named columns, and recognize those that are not named. Raises `DataError` listing the columns."""
    notes = []
    known = rows.column_names
    if label is None:
        texts = find_text_columns(rows, origin, text) if text is not None else ()
        label = _recognize_label(rows, texts, origin)
        notes.append(f"label: recognized in column '{label}'")
        names = _names_of_ids(rows, label)
        if names is not None:
            notes[-1] = f"label: recognized in column '{names}', the names of the ids in '{label}'"
            label = names
    elif label not in known:
        raise missing_column("data.label", label, known, origin)
    texts = find_text_columns(rows, origin, text, besides=label)
    if text is None:
        shown = " and ".join(f"'{name}'" for name in texts)
        notes.insert(0, f"text: recognized in column{'s' if len(texts) > 1 else ''} {shown}")
    if label in texts:
        raise DataError(f"data.label: '{label}' is the text column too: the label needs a column of its own.")
    return Columns(texts, label, tuple(notes))


def find_text_columns(
    rows: Dataset, origin: str, text: str | tuple[str, ...] | None, besides: str | None = None
) -> tuple[str, ...]:
    """Return the one or two named text columns, or those recognized, except the label's (`besides`).

    Raises `DataError`.
    """
    if text is not None:
        named = (text,) if isinstance(text, str) else text
        _check_named_texts(rows, origin, named)
        return named
    found = _recognize_texts(rows, besides)
    if not found:
        known = rows.column_names
        raise DataError(
            f"{origin}: which column holds the text? Columns: {enumerated(known)}. Name it in `data.text`, or two "
            f"columns as a list.{_header_hint(known)}"
        )
    return found


def columns_named(rows: Dataset, names: Iterable[str], besides: Sequence[str] = ()) -> list[str]:
    """Return the columns whose name is one of `names`, compared without case, in the order of `names`."""
    spelled = {name.lower(): name for name in rows.column_names if name not in besides}
    return [spelled[name] for name in names if name in spelled]


def missing_column(key: str, name: str, known: Iterable[str], origin: str) -> DataError:
    """Return the error for a column that does not exist: it lists the `known` ones and names the nearest."""
    known = list(known)
    return DataError(
        f"{key}: {origin} has no column '{name}'.{did_you_mean(name, known)} Columns: {enumerated(known)}."
        f"{_header_hint(known)}"
    )


def as_rows(table: pa.Table) -> Dataset:
    """Return a table as rows, without the hash of its content that `Dataset` computes: 300 MB take 4 s and a copy."""
    return Dataset(table, fingerprint=secrets.token_hex(8))


def holds_strings(rows: Dataset, column: str) -> bool:
    """Return whether a column's values are strings."""
    kind = rows.data.table.schema.field(column).type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def column_values(rows: Dataset, column: str) -> list[Any]:
    """Return a column as Python values."""
    return rows.with_format(None)[column][:]


def group_column(rows: Dataset, indices: Iterable[int] | None = None) -> dict[str, list[int]]:
    """Return {`GROUP`: its values}, of all rows or those at `indices`, to copy it to derived rows; empty without it."""
    if GROUP not in rows.column_names:
        return {}
    numbers = column_values(rows, GROUP)
    return {GROUP: numbers if indices is None else [numbers[index] for index in indices]}


def _check_named_texts(rows: Dataset, origin: str, named: Sequence[str]) -> None:
    for name in named:
        if name not in rows.column_names:
            raise missing_column("data.text", name, rows.column_names, origin)
    if len(named) > 2:
        raise DataError(f"data.text: one column, or two for pairs of texts, not {len(named)}.")
    if len(set(named)) < len(named):
        raise DataError(f"data.text: '{named[0]}' is named twice: a pair of texts needs two columns.")


def _recognize_texts(rows: Dataset, besides: str | None) -> tuple[str, ...]:
    """Return the columns of a known pair, else the first with a known name, else the only one of strings."""
    spelled = {name.lower(): name for name in rows.column_names if name != besides}
    for first, second in PAIRS:
        if first in spelled and second in spelled:
            return spelled[first], spelled[second]
    by_name = columns_named(rows, TEXTS, besides=[besides] if besides is not None else [])
    strings = [name for name in spelled.values() if holds_strings(rows, name)]
    if by_name:
        seconds = [name for name in strings if name.lower() in {f"{by_name[0].lower()}{end}" for end in SECOND}]
        return (by_name[0], *seconds[:1])
    numbered = _numbered_pair(strings)
    if numbered:
        return numbered
    return (strings[0],) if len(strings) == 1 else ()


def _numbered_pair(names: Sequence[str]) -> tuple[str, ...]:
    """Return the two columns whose names differ only in a mark of the first and the second; () unless one pair does.

    >>> _numbered_pair(["id", "#1 String", "#2 String"])
    ('#1 String', '#2 String')
    """
    marks = (("1", "2"), ("a", "b"), ("A", "B"), ("left", "right"), ("first", "second"))
    pairs = {
        (name, other)
        for name in names
        for one, two in marks
        for match in re.finditer(rf"(?<![a-zA-Z]){one}(?![a-zA-Z])|(?<=[a-z]){one}$", name)
        if (one.isdecimal() or "_" in name or " " in name or len(one) > 1)
        and (other := name[: match.start()] + two + name[match.end() :]) in names
    }
    return next(iter(pairs)) if len(pairs) == 1 else ()


def _recognize_label(rows: Dataset, texts: tuple[str, ...], origin: str) -> str:
    """Return the first column with a known name, else the only one besides the texts."""
    known = [name for name in rows.column_names if name != GROUP]
    by_name = columns_named(rows, LABELS, besides=texts)
    if by_name:
        return by_name[0]
    others = [name for name in known if name not in texts and (texts or name.lower() not in TEXTS)]
    if len(known) - len(texts or known[:1]) == 1 and len(others) == 1:
        return others[0]
    raise DataError(
        f"{origin}: which column holds the label? Columns: {enumerated(known)}. Name it in `data.label`."
        f"{_header_hint(known)}"
    )


def _names_of_ids(rows: Dataset, label: str) -> str | None:
    """Return the column whose names correspond one to one to the ids in `label`, if there is one."""
    spelled = {name.lower(): name for name in rows.column_names}
    for candidate in (f"{label.lower()}_name", f"{label.lower()}_text", *CLASS_NAMES):
        column = spelled.get(candidate)
        if column is not None and column != label and holds_strings(rows, column) and _are_names(rows, label, column):
            return column
    return None


def _are_names(rows: Dataset, label: str, column: str) -> bool:
    ids, names = ([str(value) for value in column_values(rows, one)] for one in (label, column))
    one_to_one = len(set(zip(ids, names, strict=True))) == len(set(ids)) == len(set(names))
    return one_to_one and all(i.isdecimal() for i in set(ids)) and not any(name.isdecimal() for name in set(names))


def _header_hint(known: Iterable[str]) -> str:
    """Return a hint where the names look like a row of a file without a header: long, or numbers."""
    odd = any(len(name) > 40 or name.isdecimal() for name in known)
    return " If the first line is a row of data, add a header line above it." if odd else ""
