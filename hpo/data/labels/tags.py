"""Reading texts as words with a tag each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset

from hpo.core.format import count, first_few, row_numbers
from hpo.data.columns import column_values, columns_named, group_column, holds_strings, missing_column
from hpo.data.labels.multi_label import holds_lists
from hpo.errors import DataError

# In the order of preference; compared without case.
WORDS = ("tokens", "words", "token", "word", "text", "sentence")
TAGS = ("ner_tags", "tags", "ner", "labels", "label", "pos_tags", "chunk_tags", "upos", "pos", "iob_tags", "bio_tags")


@dataclass(frozen=True)
class Tags:
    """Each split's rows as `text` (words) and `label` (tag numbers), and the tags by name."""

    rows: Mapping[str, Dataset]
    names: tuple[str, ...]
    notes: tuple[str, ...]


def find_tag_columns(rows: Dataset, origin: str, words: str | None, tags: str | None) -> tuple[str, str, list[str]]:
    """The columns of words and of tags: the named ones, else those recognised; and notes. Raises `DataError`."""
    notes: list[str] = []
    found: list[str] = []
    for key, named, names in (("text", words, WORDS), ("label", tags, TAGS)):
        if named is not None and named not in rows.column_names:
            raise missing_column(f"data.{key}", named, rows.column_names, origin)
        column = named or recognize_column(rows, names, besides=found)
        if column is None:
            what = "words, a list in each row" if key == "text" else "tags, one for each word"
            raise DataError(
                f"{origin}: which column holds the {what}? Columns: {', '.join(rows.column_names)}. Name it in "
                f"`data.{key}`."
            )
        if named is None:
            notes.append(f"{'words' if key == 'text' else 'tags'}: recognized in column '{column}'")
        found.append(column)
    return found[0], found[1], notes


def recognize_column(rows: Dataset, names: Sequence[str], besides: Sequence[str] = ()) -> str | None:
    """The first column called one of `names`, those of lists before those of texts."""
    known = columns_named(rows, names, besides)
    lists = [name for name in known if holds_lists(rows, name)]
    return next(iter(lists or [name for name in known if holds_strings(rows, name)]), None)


def read_tags(splits: Mapping[str, Dataset], words: str, tags: str, origins: Mapping[str, str]) -> Tags:
    """Words and tags of every split; a text stands for its words between white space.

    Tags are numbered as their feature does, else in sorted order with `O` first. Raises `DataError` naming the file
    and row where there are not as many tags as words.
    """
    texts, spelled, groups, notes = {}, {}, {}, []
    for split, rows in splits.items():
        where = origins[split]
        texts[split] = [list(map(str, row)) for row in _lists(rows, words, where)]
        spelled[split] = _spelled(rows, tags, where)
        for number, (row, labels) in enumerate(zip(texts[split], spelled[split], strict=True), 1):
            if len(row) != len(labels):
                raise DataError(
                    f"{where}, row {number}: {count(len(row), 'word')} in '{words}' and "
                    f"{count(len(labels), 'tag')} in '{tags}': each word needs one."
                )
        kept = [place for place, row in enumerate(texts[split]) if any(word.strip() for word in row)]
        groups[split] = group_column(rows, kept)
        if len(kept) < len(rows):
            notes.append(f"{count(len(rows) - len(kept), 'row')} of {where} dropped: no words in it")
            for read in (texts, spelled):
                read[split] = [read[split][place] for place in kept]
        if not texts[split]:
            raise DataError(f"{where}: no row holds a word.")
    found = Counter(tag for rows in spelled.values() for row in rows for tag in row)
    blank = [tag for tag in found if not tag.strip()]
    if blank:
        rows_with = [n for n, row in enumerate(spelled["train"], 1) if any(tag in blank for tag in row)]
        raise DataError(
            f"{origins['train']}: {count(len(rows_with), 'row')} with an empty tag ({row_numbers(rows_with)})."
        )
    inner = getattr(splits["train"].features[tags], "feature", None)
    names = [n for n in inner.names if n in found] if isinstance(inner, ClassLabel) else sorted(found, key=_order)
    number_of = {name: place for place, name in enumerate(names)}
    tagged = {
        split: Dataset.from_dict(
            {"text": texts[split], "label": [[number_of[tag] for tag in row] for row in spelled[split]]} | groups[split]
        )
        for split in splits
    }
    return Tags(tagged, tuple(names), tuple(notes))


def check_tags(splits: Mapping[str, Dataset], names: Sequence[str], origins: Mapping[str, str]) -> list[str]:
    """Refuse tags that nothing can be learnt from or judged by; returns notes on what is only doubtful."""
    counts = {
        split: Counter(tag for row in column_values(rows, "label") for tag in row) for split, rows in splits.items()
    }
    if len(counts["train"]) < 2:
        raise DataError(f"{origins['train']}: every word has the tag '{names[0]}': there is nothing to tell apart.")
    notes = []
    for split, found in counts.items():
        where = origins.get(split, f"{split}, made from {origins['train']}")
        if len(found) < 2:
            raise DataError(f"{where}: every word has the same tag: nothing can be judged by it.")
        unknown = [names[tag] for tag in sorted(set(found) - set(counts["train"]))]
        if unknown:
            notes.append(f"{where}: no training row has {first_few(unknown)}: it cannot be learnt")
    return notes


def rarest_tag(rows: Dataset) -> list[int]:
    """For each row the number of the rarest of its tags."""
    tagged = column_values(rows, "label")
    rows_with = Counter(tag for row in tagged for tag in set(row))
    return [min(set(row), key=lambda tag: (rows_with[tag], tag)) for row in tagged]


def _order(tag: str) -> tuple[bool, str, str]:
    prefix, _, kind = tag.partition("-")
    return (tag != "O", kind, prefix)


def _lists(rows: Dataset, column: str, where: str) -> list[list[Any]]:
    if holds_strings(rows, column):
        return [str(value or "").split() for value in column_values(rows, column)]
    if not holds_lists(rows, column):
        kind = rows.data.table.schema.field(column).type
        raise DataError(f"{where}, column '{column}': holds {kind}, where each row needs a list with one entry a word.")
    values = column_values(rows, column)
    missing = [n for n, value in enumerate(values, 1) if value is None or any(entry is None for entry in value)]
    if missing:
        raise DataError(f"{where}, column '{column}': nothing stands in {row_numbers(missing)}.")
    return values


def _spelled(rows: Dataset, column: str, where: str) -> list[list[str]]:
    inner = getattr(rows.features[column], "feature", None)
    if isinstance(inner, ClassLabel):
        return [[inner.int2str(tag) for tag in row] for row in _lists(rows, column, where)]
    kind = rows.data.table.schema.field(column).type
    if holds_lists(rows, column) and pa.types.is_floating(kind.value_type):
        raise DataError(f"{where}, column '{column}': holds fractions, where tags are words or whole numbers.")
    return [list(map(str, row)) for row in _lists(rows, column, where)]
