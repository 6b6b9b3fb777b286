"""Which columns hold the texts and the label: as the study names them, else recognised by their names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from datasets import Dataset

from hpo.errors import DataError, did_you_mean

# In the order of preference; compared without case.
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("text", "text_pair"),
    ("question", "answer"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
)
TEXTS = (
    *("text", "sentence", "content", "review", "document", "message", "comment", "tweet", "utterance", "abstract"),
    *("body", "description", "post", "question", "query", "prompt", "headline", "title", "sms", "input", "words"),
)
LABELS = (
    *("label", "labels", "label_name", "label_text", "gold_label", "class", "class_name", "category", "target"),
    *("intent", "sentiment", "emotion", "topic", "tag", "rating", "output", "y"),
    *("score", "similarity", "similarity_score", "relatedness_score"),
)
# Columns of hpo's own: which rows stay together, as numbers, where folds are to be made; and each row's fold, from 0.
GROUP, FOLD = "_group", "_fold"
READABLE = ("label_name", "label_text", "class_name", "category", "intent")


@dataclass(frozen=True)
class Columns:
    """The source columns of the one or two texts and of the label; `notes` say which were recognised."""

    text: tuple[str, ...]
    label: str
    notes: tuple[str, ...] = ()

    def by_role(self) -> dict[str, str]:
        """role (text, text_pair, label) -> column."""
        return {**dict(zip(("text", "text_pair"), self.text, strict=False)), "label": self.label}


def find_columns(rows: Dataset, origin: str, text: str | tuple[str, ...] | None, label: str | None) -> Columns:
    """Take the named columns and recognise those that are not. Raises `DataError` listing the columns there are."""
    notes = []
    known = rows.column_names
    if label is None:
        texts = find_text_columns(rows, origin, text) if text is not None else ()
        label = _recognise_label(rows, texts, origin)
        notes.append(f"label: recognized in column '{label}'")
        twin = _readable_twin(rows, label)
        if twin is not None:
            notes[-1] = f"label: recognized in column '{twin}', the names of the ids in '{label}'"
            label = twin
    elif label not in known:
        raise missing_column("data.label", label, known, origin)
    texts = find_text_columns(rows, origin, text, besides=label)
    if text is None:
        shown = " and ".join(f"'{name}'" for name in texts)
        notes.insert(0, f"text: recognized in column{'s' if len(texts) > 1 else ''} {shown}")
    if label in texts:
        raise DataError(f"data.label: '{label}' is the text column too: the label stands in a column of its own.")
    return Columns(texts, label, tuple(notes))


def find_text_columns(
    rows: Dataset, origin: str, text: str | tuple[str, ...] | None, besides: str | None = None
) -> tuple[str, ...]:
    """The one or two text columns: the named ones, else those recognised, the label's (`besides`) left out."""
    known = rows.column_names
    if text is not None:
        named = (text,) if isinstance(text, str) else text
        for name in named:
            if name not in known:
                raise missing_column("data.text", name, known, origin)
        if len(named) > 2:
            raise DataError(f"data.text: one column, or two for pairs of texts; these are {len(named)}.")
        if len(set(named)) < len(named):
            raise DataError(f"data.text: '{named[0]}' is named twice: a pair of texts stands in two columns.")
        return named
    spelled = {name.lower(): name for name in known if name != besides}
    for first, second in PAIRS:
        if first in spelled and second in spelled:
            return spelled[first], spelled[second]
    by_name = columns_named(rows, TEXTS, besides=[besides] if besides is not None else [])
    if by_name:
        return (by_name[0],)
    strings = [name for name in spelled.values() if holds_strings(rows, name)]
    if len(strings) == 1:
        return (strings[0],)
    raise DataError(
        f"{origin}: which column holds the text? Columns: {', '.join(known)}. Name it in `data.text`, or two "
        f"columns as a list.{_header_hint(known)}"
    )


def columns_named(rows: Dataset, names: Iterable[str], besides: Sequence[str] = ()) -> list[str]:
    """The columns that are called one of `names`, whatever the case, in the order of `names`."""
    spelled = {name.lower(): name for name in rows.column_names if name not in besides}
    return [spelled[name] for name in names if name in spelled]


def missing_column(key: str, name: str, known: Iterable[str], origin: str) -> DataError:
    """The error for a column that is not there: it lists those that are and names the nearest."""
    known = list(known)
    return DataError(
        f"{key}: {origin} has no column '{name}'.{did_you_mean(name, known)} Columns: {', '.join(known)}."
        f"{_header_hint(known)}"
    )


def holds_strings(rows: Dataset, column: str) -> bool:
    """Whether a column's values are strings."""
    kind = rows.data.table.schema.field(column).type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def column_values(rows: Dataset, column: str) -> list[Any]:
    """A column as Python values."""
    return rows.with_format(None)[column][:]


def group_column(rows: Dataset, places: Iterable[int] | None = None) -> dict[str, list[int]]:
    """The column `GROUP` of all rows or those at `places`, for rows that are made of these; empty where it is none."""
    if GROUP not in rows.column_names:
        return {}
    numbers = column_values(rows, GROUP)
    return {GROUP: numbers if places is None else [numbers[place] for place in places]}


def _recognise_label(rows: Dataset, texts: tuple[str, ...], origin: str) -> str:
    known = [name for name in rows.column_names if name != GROUP]
    by_name = columns_named(rows, LABELS, besides=texts)
    if by_name:
        return by_name[0]
    others = [name for name in known if name not in texts and (texts or name.lower() not in TEXTS)]
    if len(known) - len(texts or known[:1]) == 1 and len(others) == 1:
        return others[0]
    raise DataError(
        f"{origin}: which column holds the label? Columns: {', '.join(known)}. Name it in `data.label`."
        f"{_header_hint(known)}"
    )


def _readable_twin(rows: Dataset, label: str) -> str | None:
    """The column of names that stands one to one for the ids in `label`, where there is one."""
    spelled = {name.lower(): name for name in rows.column_names}
    for candidate in (f"{label.lower()}_name", f"{label.lower()}_text", *READABLE):
        twin = spelled.get(candidate)
        if twin is None or twin == label or not holds_strings(rows, twin):
            continue
        ids, names = ([str(value) for value in column_values(rows, column)] for column in (label, twin))
        pairs = set(zip(ids, names, strict=True))
        one_to_one = len(pairs) == len(set(ids)) == len(set(names))
        if one_to_one and all(i.isdecimal() for i in set(ids)) and not any(n.isdecimal() for n in set(names)):
            return twin
    return None


def _header_hint(known: Iterable[str]) -> str:
    """A file without a header shows a row's values as names: they are long, or numbers."""
    odd = any(len(name) > 40 or name.isdecimal() for name in known)
    return " If the first line is a row of data, add a header line above it." if odd else ""
