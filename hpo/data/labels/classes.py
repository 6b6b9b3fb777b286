"""Reading a label column as classes: what counts as a label, in which order classes stand, what is refused."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset

from hpo.core.format import count, first_few, row_numbers
from hpo.data.columns import column_values
from hpo.data.readers import MIXED
from hpo.errors import DataError

INTEGER = re.compile(r"-?(0|[1-9]\d*)")  # `01` and `+1` are words: they would not survive as numbers
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
NO_NUMBER = frozenset({"nan", "na", "n/a", "null", "none", "?"})  # among numbers; among words they are words
KINDS = {"str": "word", "int": "whole number", "float": "fraction", "bool": "truth value", "number": "number"}
IGNORED = -100  # the index that cross entropy leaves out: with nothing else the loss is 0 and "wins"


@dataclass(frozen=True)
class Classes:
    """The classes by name, in order, and each split's rows as their numbers; `notes` say what was changed."""

    names: tuple[str, ...]
    ids: Mapping[str, list[int]]
    notes: tuple[str, ...]


def read_classes(splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str]) -> Classes:
    """Read the label column of all splits together.

    Words are classes in sorted order, ids in numeric order (numbered anew from 0 where they have gaps). The order
    of a `ClassLabel` feature is kept. Raises `DataError` naming the file and rows of labels that are missing,
    negative, fractions or of several types.
    """
    values = {
        split: _all_present(_values(rows, column, origins[split]), f"{origins[split]}, column '{column}'")
        for split, rows in splits.items()
    }
    distinct = Counter(label for labels in values.values() for label in labels)
    feature = splits["train"].features[column]
    notes: list[str] = []
    if isinstance(feature, ClassLabel):
        order: list[str | int] = [name for name in feature.names if name in distinct]
    elif all(isinstance(label, int) for label in distinct):
        order = sorted(distinct, key=int)
        _refuse_negative(values, column, origins)
        if order != list(range(len(order))):
            notes.append(
                f"ids with gaps ({first_few(order)}) numbered anew from 0 to {len(order) - 1}; their names stay"
            )
    else:
        order = sorted(distinct, key=str)
        notes += _same_but_case([str(label) for label in order])
    number = {label: place for place, label in enumerate(order)}
    ids = {split: [number[label] for label in labels] for split, labels in values.items()}
    return Classes(tuple(str(label) for label in order), ids, tuple(notes))


def _values(rows: Dataset, column: str, origin: str) -> list[str | int | None]:
    """Each row's label as a word, a whole number, or None where there is none."""
    where = f"{origin}, column '{column}'"
    feature = rows.features[column]
    kind = rows.data.table.schema.field(column).type
    raw = column_values(rows, column)
    if kind == MIXED:
        raise _mixed(where, [None if value is None else (value["type"], value["json"]) for value in raw])
    if isinstance(feature, ClassLabel):
        names = dict(enumerate(feature.names))  # -1 is how the hub's datasets say that a row has no label
        return [names.get(value) for value in raw]
    if pa.types.is_boolean(kind):
        return [None if value is None else str(value) for value in raw]
    if pa.types.is_integer(kind):
        return raw
    if pa.types.is_floating(kind):
        return _whole([None if math.isnan(value) else value for value in map(_number, raw)], where)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_words([str(value or "").strip() or None for value in raw], where)
    if pa.types.is_null(kind):
        return raw
    several = " Several classes a row are `task: multi-label-classification`." if pa.types.is_list(kind) else ""
    raise DataError(f"{where}: holds {kind}, where each row needs one label: a word or a whole number.{several}")


def _from_words(words: Sequence[str | None], where: str) -> list[str | int | None]:
    """Words as they are, or whole numbers where every one is spelled as such."""
    numbers = {word for word in set(words) if word is not None and NUMBER.fullmatch(word)}
    others = {word for word in set(words) if word is not None} - numbers
    if numbers and not {word.lower() for word in others} - NO_NUMBER:
        known = [None if word in others else word for word in words]
        if all(INTEGER.fullmatch(word) for word in numbers):
            return [None if word is None else int(word) for word in known]
        if any("." in word or "e" in word.lower() for word in numbers):
            return _whole([None if word is None else float(word) for word in known], where)
        return list(known)
    if any(INTEGER.fullmatch(word) for word in numbers):
        raise _mixed(where, [None if w is None else ("number" if w in numbers else "str", w) for w in words])
    return list(words)


def _whole(numbers: Sequence[float | None], where: str) -> list[str | int | None]:
    """`1.0` as 1, which is what pandas makes of a column of ids with a gap; a fraction is refused."""
    for row, number in enumerate(numbers, 1):
        if number is not None and not float(number).is_integer():
            raise DataError(
                f"{where}, row {row}: {number} is not a whole number. Labels that measure something are a "
                "regression, not classes: write `task: text-regression`. To classify, make classes of them first, such "
                "as 'low' and 'high'."
            )
    return [None if number is None else int(number) for number in numbers]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _mixed(where: str, labels: Sequence[tuple[str, str] | None]) -> DataError:
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for row, label in enumerate(labels, 1):
        if label is not None:
            kind, spelled = label
            counts[kind] += 1
            first.setdefault(kind, f"{spelled} in row {row}")
    found = ", ".join(f"{count(counts[kind], KINDS.get(kind, kind))} ({first[kind]})" for kind in first)
    return DataError(
        f"{where}: labels of mixed type: {found}. Write all of them as whole numbers or all as words "
        "(a word that is a number can be written 'n1')."
    )


def _all_present(labels: Sequence[str | int | None], where: str) -> list[str | int]:
    """The labels, or `DataError` where rows have none."""
    missing = [row for row, label in enumerate(labels, 1) if label is None]
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {count(len(labels), 'row')} without a label ({row_numbers(missing)}). "
            "Fill the labels in or take these rows out."
        )
    return [label for label in labels if label is not None]


def _refuse_negative(values: Mapping[str, Sequence[str | int | None]], column: str, origins: Mapping[str, str]) -> None:
    for split, labels in values.items():
        where = f"{origins[split]}, column '{column}'"
        if all(label == IGNORED for label in labels):
            raise DataError(
                f"{where}: every label is {IGNORED}, the index that the loss ignores: there is nothing to learn. "
                "Give the rows their labels."
            )
        negative = [row for row, label in enumerate(labels, 1) if isinstance(label, int) and label < 0]
        if negative:
            raise DataError(
                f"{where}: {count(len(negative), 'negative id')}, such as {labels[negative[0] - 1]} "
                f"({row_numbers(negative)}). Ids count from 0; a row without a label must be taken out."
            )


def _same_but_case(names: Sequence[str]) -> list[str]:
    folded: dict[str, str] = {}
    notes = []
    for name in names:
        twin = folded.setdefault(name.casefold(), name)
        if twin != name:
            notes.append(f"classes '{twin}' and '{name}' differ only in case: kept as two")
    return notes
