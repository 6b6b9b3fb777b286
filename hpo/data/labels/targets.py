"""Reading texts with the texts that are to be written of them: summaries, translations."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.core.format import count, row_numbers
from hpo.data.checks import find_empty, read_texts
from hpo.data.columns import Columns, column_values, columns_named, group_column, holds_strings, missing_column
from hpo.data.sources import RawSplits, load_splits
from hpo.errors import DataError

NESTED = "translation"  # the hub's translation data: a column of {"en": …, "de": …}


def load_flattened(config: DataConfig, seed: int) -> RawSplits:
    """The splits, with the languages of a nested column `translation` as columns of their own."""
    raw = load_splits(config, seed)
    splits = {split: flatten_translations(rows) for split, rows in raw.present().items()}
    return RawSplits(splits["train"], splits.get("validation"), splits.get("test"), raw.origins, raw.notes)


def flatten_translations(rows: Dataset) -> Dataset:
    """Rows whose column `translation` holds a text for each language, with a column for each instead."""
    table = rows.data.table
    if NESTED not in table.column_names or not pa.types.is_struct(table.schema.field(NESTED).type):
        return rows
    nested = table.column(NESTED).combine_chunks()
    languages = {field.name: nested.field(place) for place, field in enumerate(nested.type)}
    others = {name: table.column(name) for name in table.column_names if name != NESTED and name not in languages}
    return Dataset(pa.table({**languages, **others}))


def find_target_columns(
    rows: Dataset, origin: str, config: DataConfig, pairs: Sequence[tuple[Sequence[str], Sequence[str]]]
) -> Columns:
    """The columns of the text to read and of the one to write: the named ones, else those recognised.

    `pairs` are names that go together, the likeliest first; where none is there, two columns of text are taken in
    their order. Raises `DataError`.
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
            f"{origin}: which column is read, and which is to be written? Columns: {', '.join(known)}. Name them in "
            "`data.text` and `data.label`."
        )
    named = ((config.text, "text", found[0]), (config.label, "target", found[1]))
    notes = [f"{role}: recognized in column '{column}'" for given, role, column in named if given is None]
    if found[0] == found[1]:
        raise DataError(f"data.label: '{found[1]}' is the text column too: what is written stands in its own.")
    return Columns((found[0],), found[1], tuple(notes))


def recognize_pair(
    rows: Dataset, config: DataConfig, pairs: Sequence[tuple[Sequence[str], Sequence[str]]]
) -> tuple[str, str] | None:
    """The columns read and written, as named or by the names of `pairs`; None where they cannot be told."""
    text, label = config.text, config.label
    if isinstance(text, tuple) or isinstance(label, tuple):
        return None
    for texts, targets in pairs:
        read = text or next((name for name in columns_named(rows, texts) if name != label), None)
        written = label or next((name for name in columns_named(rows, targets) if name != read), None)
        if read is not None and written is not None:
            return read, written
    strings = [name for name in rows.column_names if holds_strings(rows, name)]
    others = [name for name in strings if name not in (text, label)]
    if len(others) + (text is not None) + (label is not None) != 2:
        return None
    left = iter(others)
    return text or next(left), label or next(left)


def read_pairs(
    splits: Mapping[str, Dataset], columns: Columns, origins: Mapping[str, str], drop_empty: bool
) -> tuple[dict[str, Dataset], list[str]]:
    """Rows as `text` and `label`, a list of the texts that are right (the first is learnt); and notes.

    Raises `DataError` naming file and row of an empty text or target.
    """
    read, notes = {}, []
    (text,), target = columns.text, columns.label
    for split, rows in splits.items():
        where = origins[split]
        texts, targets = read_texts(rows, text, where), _read_targets(rows, target, where)
        whole = [said if right else "" for said, right in zip(texts, targets, strict=True)]
        empty, said = find_empty([whole], f"{where}, column '{text}' or '{target}'", drop_empty)
        notes += said
        kept = [place for place in range(len(rows)) if place not in empty]
        if not kept:
            raise DataError(f"{where}: the text of every row is empty.")
        read[split] = Dataset.from_dict(
            {"text": [texts[place] for place in kept], "label": [targets[place] for place in kept]}
            | group_column(rows, kept)
        )
    return read, notes


def _read_targets(rows: Dataset, column: str, origin: str) -> list[list[str]]:
    """A column of texts, or of lists of texts that are all right."""
    kind = rows.data.table.schema.field(column).type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return [[text] if text else [] for text in read_texts(rows, column, origin)]
    values: list[Any] = column_values(rows, column)
    wrong = [row for row, value in enumerate(values, 1) if any(not isinstance(one, str) for one in value or ())]
    if wrong:
        raise DataError(
            f"data.label: {origin}, column '{column}' holds lists of something else than texts in "
            f"{count(len(wrong), 'row')} ({row_numbers(wrong)})."
        )
    return [[text for text in value or () if text.strip()] for value in values]
