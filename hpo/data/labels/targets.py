"""Pairs of a text and the texts to generate from it: summaries, translations."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.core.format import count, row_numbers
from hpo.data.checks import find_empty, read_texts
from hpo.data.columns import Columns, column_values, columns_named, group_column, holds_strings, missing_column
from hpo.data.sources import load_splits
from hpo.data.splits.raw import RawSplits
from hpo.errors import DataError, enumerated

NESTED = "translation"  # the hub's translation data has a column of {"en": …, "de": …}
NamePairs = Sequence[tuple[Sequence[str], Sequence[str]]]


def load_flattened(config: DataConfig, seed: int) -> RawSplits:
    """Read the splits, with the languages of a nested column `translation` as columns of their own."""
    raw = load_splits(config, seed)
    splits = {split: flatten_translations(rows) for split, rows in raw.present().items()}
    return RawSplits(splits["train"], splits.get("validation"), splits.get("test"), raw.origins, raw.notes)


def flatten_translations(rows: Dataset) -> Dataset:
    """Return the rows with a column for each language of the nested column `translation`, if there is one."""
    table = rows.data.table
    if NESTED not in table.column_names or not pa.types.is_struct(table.schema.field(NESTED).type):
        return rows
    nested = table.column(NESTED).combine_chunks()
    languages = {field.name: nested.field(index) for index, field in enumerate(nested.type)}
    others = {name: table.column(name) for name in table.column_names if name != NESTED and name not in languages}
    return Dataset(pa.table({**languages, **others}))


def find_target_columns(rows: Dataset, origin: str, config: DataConfig, pairs: NamePairs) -> Columns:
    """Return the columns of the text and of the target, named or recognized. Raises `DataError`.

    `pairs` are names of texts and of their targets, in the order of preference; where no pair is found, the only two
    columns of strings are used, in their order.
    """
    if isinstance(config.text, tuple) or isinstance(config.label, tuple):
        key = "data.text" if isinstance(config.text, tuple) else "data.label"
        raise DataError(f"{key}: this task reads one column of texts and writes one.")
    known = rows.column_names
    for key, given in (("data.text", config.text), ("data.label", config.label)):
        if given is not None and given not in known:
            raise missing_column(key, given, known, origin)
    found = recognize_pair(rows, config, pairs)
    if found is None:
        raise DataError(
            f"{origin}: which column is read, and which is to be written? Columns: {enumerated(known)}. Name them in "
            "`data.text` and `data.label`."
        )
    named = ((config.text, "text", found[0]), (config.label, "target", found[1]))
    notes = [f"{role}: recognized in column '{column}'" for given, role, column in named if given is None]
    if found[0] == found[1]:
        raise DataError(f"data.label: '{found[1]}' is the text column too: the target needs a column of its own.")
    return Columns((found[0],), found[1], tuple(notes))


def recognize_pair(rows: Dataset, config: DataConfig, pairs: NamePairs) -> tuple[str, str] | None:
    """Return the columns of the text and of the target, as named or by the names of `pairs`; None if not recognized."""
    text, label = config.text, config.label
    if isinstance(text, tuple) or isinstance(label, tuple):
        return None
    for texts, targets in pairs:
        source = text or _first_named(rows, texts, besides=label)
        target = label or _first_named(rows, targets, besides=source)
        if source is not None and target is not None:
            return source, target
    return _only_strings(rows, text, label)


def _first_named(rows: Dataset, names: Sequence[str], besides: str | None) -> str | None:
    return next((name for name in columns_named(rows, names) if name != besides), None)


def _only_strings(rows: Dataset, text: str | None, label: str | None) -> tuple[str, str] | None:
    """Return the two columns where, with those that are named, there are no other columns of strings."""
    others = [name for name in rows.column_names if holds_strings(rows, name) and name not in (text, label)]
    if len(others) != [text, label].count(None):
        return None
    left = iter(others)
    return text or next(left), label or next(left)


def read_pairs(
    splits: Mapping[str, Dataset], columns: Columns, origins: Mapping[str, str], drop_empty: bool
) -> tuple[dict[str, Dataset], list[str]]:
    """Return rows of `text` and `label`, a list of the right texts of which the first is the target; and notes.

    Raises `DataError` naming file and row of an empty text or target.
    """
    read, notes = {}, []
    (text,), target = columns.text, columns.label
    for split, rows in splits.items():
        where = origins[split]
        texts, targets = read_texts(rows, text, where), _read_targets(rows, target, where)
        complete = [given if right else "" for given, right in zip(texts, targets, strict=True)]
        empty, dropped = find_empty([complete], f"{where}, column '{text}' or '{target}'", drop_empty)
        notes += dropped
        kept = [index for index in range(len(rows)) if index not in empty]
        if not kept:
            raise DataError(f"{where}: the text of every row is empty.")
        read[split] = Dataset.from_dict(
            {"text": [texts[index] for index in kept], "label": [targets[index] for index in kept]}
            | group_column(rows, kept)
        )
    return read, notes


def _read_targets(rows: Dataset, column: str, origin: str) -> list[list[str]]:
    """Return the non-empty texts of each row, from a column of texts or of lists of texts."""
    kind = rows.data.table.schema.field(column).type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return [[text] if text else [] for text in read_texts(rows, column, origin)]
    values: list[list[Any]] = [value or [] for value in column_values(rows, column)]
    wrong = [row for row, value in enumerate(values, 1) if not all(isinstance(one, str) for one in value)]
    if wrong:
        raise DataError(
            f"data.label: {origin}, column '{column}' contains lists of other values than texts in "
            f"{count(len(wrong), 'row')} ({row_numbers(wrong)})."
        )
    return [[text for text in value if text.strip()] for value in values]
