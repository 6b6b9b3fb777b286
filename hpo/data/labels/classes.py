"""A label column as classes: which values are labels, the order of the classes, and what is refused."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset

from hpo.core.format import count, first_few, row_numbers
from hpo.data.columns import column_values
from hpo.data.formats.objects.rows import MIXED
from hpo.errors import DataError

Label = str | int | None  # None: the row has no label

INTEGER = re.compile(r"-?(0|[1-9]\d*)")  # `01` and `+1` are strings: as integers they would lose their spelling
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
# Missing values in a column of numbers; in a column of strings they are strings, such as the country code `NA`.
MISSING = frozenset({"nan", "na", "n/a", "null", "none", "?"})
KINDS = {"str": "word", "int": "whole number", "float": "fraction", "bool": "truth value", "number": "number"}
MANY = 300  # classes, above which their names are not compared in pairs
IGNORED = -100  # the index that cross entropy ignores: if every label is ignored, the loss is 0 and "wins"
TYPES: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_integer, "integer"),
    (pa.types.is_null, "integer"),
    (pa.types.is_floating, "float"),
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_string, "string"),
    (pa.types.is_large_string, "string"),
)


@dataclass(frozen=True)
class Classes:
    """The names of the classes, in order, and the class index of each row by split; `notes` name what was changed."""

    names: tuple[str, ...]
    ids: Mapping[str, list[int]]
    notes: tuple[str, ...]


def read_classes(splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str]) -> Classes:
    """Read the label column of all splits together.

    Strings are sorted as strings, integer ids as integers, which are renumbered from 0 where they have gaps; a
    `ClassLabel` feature keeps its order. Raises `DataError` naming the file and rows of labels that are missing,
    negative, fractions or of several types.
    """
    values = {
        split: _read_column(rows, column, f"{origins[split]}, column '{column}'") for split, rows in splits.items()
    }
    found = {label for labels in values.values() for label in labels}
    feature = splits["train"].features[column]
    order, notes = _order_classes(found, feature.names if isinstance(feature, ClassLabel) else None)
    if not any(isinstance(label, str) for label in found):
        _check_ids(values, column, origins)
    index = {label: number for number, label in enumerate(order)}
    ids = {split: [index[label] for label in labels] for split, labels in values.items()}
    return Classes(tuple(str(label) for label in order), ids, tuple(notes))


def _read_column(rows: Dataset, column: str, where: str) -> list[str | int]:
    """Return each row's label as a string or an integer. Raises `DataError`."""
    kind = rows.data.table.schema.field(column).type
    values = column_values(rows, column)
    if kind == MIXED:
        raise _mixed_types(where, [None if value is None else (value["type"], value["json"]) for value in values])
    feature = rows.features[column]
    if isinstance(feature, ClassLabel):
        names = dict(enumerate(feature.names))
        return _require_labels([names.get(value) for value in values], where)  # hub datasets use -1 for no label
    return _require_labels(_convert(values, _detect_type(kind, where), where), where)


def _detect_type(kind: pa.DataType, where: str) -> str:
    found = next((name for test, name in TYPES if test(kind)), None)
    if found is None:
        several = " For several classes per row: `task: multi-label-classification`." if pa.types.is_list(kind) else ""
        raise DataError(f"{where}: contains {kind}, but each row needs one label: a word or a whole number.{several}")
    return found


def _convert(values: Sequence[Any], kind: str, where: str) -> Sequence[Label]:
    if kind == "integer":
        return values
    if kind == "float":
        return _convert_floats([None if value != value else value for value in values], where)
    if kind == "string":
        return _convert_strings([str(value or "").strip() or None for value in values], where)
    return [None if value is None else str(value) for value in values]


def _convert_strings(words: Sequence[str | None], where: str) -> Sequence[Label]:
    """Return the strings unchanged, or as integers where all of them are spelled as integers."""
    distinct = set(filter(None, words))
    numbers = {word for word in distinct if NUMBER.fullmatch(word)}
    others = distinct - numbers
    if numbers and not {word.lower() for word in others} - MISSING:
        return _convert_numbers([None if word in others else word for word in words], numbers, where)
    if any(map(INTEGER.fullmatch, numbers)):
        kinds = dict.fromkeys(numbers, "number")
        raise _mixed_types(where, [(kinds.get(word, "str"), word) if word else None for word in words])
    return words


def _convert_numbers(words: Sequence[str | None], numbers: set[str], where: str) -> Sequence[Label]:
    """Return strings that are all spelled as numbers as integers, unless that would change a spelling (`01`)."""
    if all(INTEGER.fullmatch(word) for word in numbers):
        return [None if word is None else int(word) for word in words]
    if any("." in word or "e" in word.lower() for word in numbers):
        return _convert_floats([None if word is None else float(word) for word in words], where)
    return words


def _convert_floats(numbers: Sequence[float | None], where: str) -> list[Label]:
    """Return `1.0` as 1: pandas stores a column of ids with a gap as floats. Raises `DataError` for fractions."""
    for row, number in enumerate(numbers, 1):
        if number is not None and not float(number).is_integer():
            raise DataError(
                f"{where}, row {row}: {number} is not a whole number. Labels that are measurements need a regression: "
                "`task: text-regression`. To classify them, convert them to classes first, such as 'low' and 'high'."
            )
    return [None if number is None else int(number) for number in numbers]


def _order_classes(found: set[str | int], names: Sequence[str] | None) -> tuple[list[str | int], list[str]]:
    """Return the classes in order, and notes; `names` are those of a `ClassLabel` feature."""
    if names is not None:
        return [name for name in names if name in found], []
    if any(isinstance(label, str) for label in found):
        order = sorted(found, key=str)
        return order, _case_notes([str(label) for label in order])
    order = sorted(found, key=int)
    if order == list(range(len(order))):
        return order, []
    return order, [f"ids with gaps ({first_few(order)}) renumbered from 0 to {len(order) - 1}; their names are kept"]


def _case_notes(names: Sequence[str]) -> list[str]:
    folded: dict[str, str] = {}
    notes = []
    for name in names:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            notes.append(f"classes '{other}' and '{name}' differ only in case: kept as two")
    if "-" in names:
        notes.append("class '-' often marks rows without a label: `data.drop_empty: true` drops them")
    return notes + _near_duplicates(list(folded)) if len(folded) <= MANY else notes


def _near_duplicates(names: Sequence[str]) -> list[str]:
    """Return notes on names of at least five letters that differ in one letter added, left out or swapped."""
    words = [name for name in names if len(name) >= 5 and not any(letter.isdigit() for letter in name)]
    return [
        f"classes '{one}' and '{other}' differ by a letter: kept as two, or is one misspelled?"
        for index, one in enumerate(words)
        for other in words[index + 1 :]
        if abs(len(one) - len(other)) <= 1
        and SequenceMatcher(None, one, other).ratio() > 1 - 1.1 / min(len(one), len(other))
    ]


def _mixed_types(where: str, labels: Sequence[tuple[str, str] | None]) -> DataError:
    """Return the error for `labels`, each a type and a spelling, with an example of each type."""
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


def _require_labels(labels: Sequence[Label], where: str) -> list[str | int]:
    missing = [row for row, label in enumerate(labels, 1) if label is None]
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {count(len(labels), 'row')} without a label ({row_numbers(missing)}). Add the "
            "labels, or remove these rows (`data.drop_empty: true`)."
        )
    return [label for label in labels if label is not None]


def _check_ids(values: Mapping[str, Sequence[str | int]], column: str, origins: Mapping[str, str]) -> None:
    for split, labels in values.items():
        where = f"{origins[split]}, column '{column}'"
        if all(label == IGNORED for label in labels):
            raise DataError(
                f"{where}: every label is {IGNORED}, the index that the loss ignores: there is nothing to learn. "
                "Add the labels."
            )
        negative = [row for row, label in enumerate(labels, 1) if isinstance(label, int) and label < 0]
        if negative:
            raise DataError(
                f"{where}: {count(len(negative), 'negative id')}, such as {labels[negative[0] - 1]} "
                f"({row_numbers(negative)}). Ids count from 0; `data.drop_empty: true` drops rows of -1."
            )
