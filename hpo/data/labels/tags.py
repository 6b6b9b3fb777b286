"""Texts as lists of words with one tag per word, as for named entities."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset

from hpo.core.format import count, first_few, row_numbers
from hpo.data.columns import column_values, columns_named, group_column, holds_strings, missing_column
from hpo.data.labels.label_lists import holds_lists
from hpo.errors import DataError, enumerated

# In the order of preference; compared without case.
WORDS = ("tokens", "words", "token", "word", "text", "sentence")
TAGS = ("ner_tags", "tags", "ner", "labels", "label", "pos_tags", "chunk_tags", "upos", "pos", "iob_tags", "bio_tags")

# IOB and IOBES as they are, and what BILOU (Last, Unit) and BMES, BMEWO (Middle, Whole) call the same.
PREFIXES = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S", "M": "I", "W": "S"}
PREFIXED = re.compile(r"([A-Z])[-_].+")


@dataclass(frozen=True)
class Tags:
    """The rows of each split as `text` (words) and `label` (tag indices), and the names of the tags."""

    rows: Mapping[str, Dataset]
    names: tuple[str, ...]
    notes: tuple[str, ...]


def find_tag_columns(rows: Dataset, origin: str, words: str | None, tags: str | None) -> tuple[str, str, list[str]]:
    """Return the columns of words and of tags, named or recognized, and notes. Raises `DataError`."""
    notes: list[str] = []
    found: list[str] = []
    for key, named, names in (("text", words, WORDS), ("label", tags, TAGS)):
        if named is not None and named not in rows.column_names:
            raise missing_column(f"data.{key}", named, rows.column_names, origin)
        column = named or recognize_column(rows, names, besides=found)
        if column is None:
            what = "words, a list in each row" if key == "text" else "tags, one for each word"
            raise DataError(
                f"{origin}: which column holds the {what}? Columns: {enumerated(rows.column_names)}. Name it in "
                f"`data.{key}`."
            )
        if named is None:
            notes.append(f"{'words' if key == 'text' else 'tags'}: recognized in column '{column}'")
        found.append(column)
    return found[0], found[1], notes


def recognize_column(rows: Dataset, names: Sequence[str], besides: Sequence[str] = ()) -> str | None:
    """Return the first column of lists whose name is one of `names`, else the first such column of strings."""
    known = columns_named(rows, names, besides)
    lists = [name for name in known if holds_lists(rows, name)]
    return next(iter(lists or [name for name in known if holds_strings(rows, name)]), None)


def read_tags(splits: Mapping[str, Dataset], words: str, tags: str, origins: Mapping[str, str]) -> Tags:
    """Read the words and tags of every split; a string is split into words at white space.

    The tags have the order of their `ClassLabel` feature, or are sorted, with `O` first. Rows without a word are
    dropped. Raises `DataError` naming the file and row where the numbers of words and tags differ.
    """
    read, notes = {}, []
    for split, rows in splits.items():
        read[split], dropped = _read_split(rows, words, tags, origins[split])
        notes += dropped
    found = {tag for columns in read.values() for row in columns["label"] for tag in row}
    _check_not_blank(read["train"]["label"], found, origins["train"])
    names = _order_tags(found, splits["train"].features[tags])
    notes += _prefix_notes(names)
    index = {name: number for number, name in enumerate(names)}
    tagged = {
        split: Dataset.from_dict({**columns, "label": [[index[tag] for tag in row] for row in columns["label"]]})
        for split, columns in read.items()
    }
    return Tags(tagged, tuple(names), tuple(notes))


def are_entity_tags(names: Sequence[str]) -> bool:
    """Return whether tags are those of entities, in IO, IOB, IOBES, BILOU or BMES."""
    others = [name for name in names if name != "O"]
    prefixes = [name.partition("-")[0] for name in others if name.partition("-")[2]]
    return bool(prefixes) and len(prefixes) == len(others) and bool(set(prefixes) & set(PREFIXES))


def _prefix_notes(names: Sequence[str]) -> list[str]:
    """Return a note on tags that look like those of entities but have a prefix that no known scheme has."""
    if not any(PREFIXED.fullmatch(name) and name[0] in PREFIXES for name in names):
        return []
    unknown = [n for n in names if PREFIXED.fullmatch(n) and (n[0] not in PREFIXES or n[1] == "_")]
    if not unknown:
        return []
    return [
        f"tags with an unknown prefix: {first_few(unknown)}: each is an entity of one word. Known are "
        f"{', '.join(f'{prefix}-' for prefix in PREFIXES)}"
    ]


def check_tags(splits: Mapping[str, Dataset], names: Sequence[str], origins: Mapping[str, str]) -> list[str]:
    """Check that the tags can be learned and evaluated; return notes on doubtful ones. Raises `DataError`."""
    counts = {
        split: Counter(tag for row in column_values(rows, "label") for tag in row) for split, rows in splits.items()
    }
    if len(counts["train"]) < 2:
        raise DataError(f"{origins['train']}: every word has the tag '{names[0]}': at least two tags are needed.")
    notes = []
    for split, found in counts.items():
        where = origins.get(split, f"{split}, taken from {origins['train']}")
        if len(found) < 2:
            raise DataError(f"{where}: every word has the same tag, so that no metric is meaningful.")
        unknown = [names[tag] for tag in sorted(set(found) - set(counts["train"]))]
        if unknown:
            notes.append(f"{where}: no training row has {first_few(unknown)}: it cannot be learned")
    return notes


def rarest_tag(rows: Dataset) -> list[int]:
    """Return for each row the index of the rarest of its tags."""
    tagged = column_values(rows, "label")
    counts = Counter(tag for row in tagged for tag in set(row))
    return [min(set(row), key=lambda tag: (counts[tag], tag)) for row in tagged]


def _read_split(rows: Dataset, words: str, tags: str, where: str) -> tuple[dict[str, list[Any]], list[str]]:
    """Return the columns of the rows that have a word, with tags as strings, and a note on the others."""
    texts = [list(map(str, row)) for row in _read_lists(rows, words, where)]
    labels = _read_tag_names(rows, tags, where)
    for number, (row, given) in enumerate(zip(texts, labels, strict=True), 1):
        if len(row) != len(given):
            raise DataError(
                f"{where}, row {number}: {count(len(row), 'word')} in '{words}' and {count(len(given), 'tag')} in "
                f"'{tags}': each word needs one."
            )
    kept = [index for index, row in enumerate(texts) if any(word.strip() for word in row)]
    if not kept:
        raise DataError(f"{where}: no row contains a word.")
    columns: dict[str, list[Any]] = {
        "text": [texts[index] for index in kept],
        "label": [labels[index] for index in kept],
        **group_column(rows, kept),
    }
    dropped = len(rows) - len(kept)
    return columns, [f"{count(dropped, 'row')} of {where} dropped: no words"] if dropped else []


def _read_lists(rows: Dataset, column: str, where: str) -> list[list[Any]]:
    if holds_strings(rows, column):
        return [str(value or "").split() for value in column_values(rows, column)]
    if not holds_lists(rows, column):
        kind = rows.data.table.schema.field(column).type
        raise DataError(
            f"{where}, column '{column}': contains {kind}, but each row needs a list with one entry per word."
        )
    values = column_values(rows, column)
    missing = [row for row, value in enumerate(values, 1) if value is None or any(entry is None for entry in value)]
    if missing:
        raise DataError(f"{where}, column '{column}': empty values in {row_numbers(missing)}.")
    return values


def _read_tag_names(rows: Dataset, column: str, where: str) -> list[list[str]]:
    inner = getattr(rows.features[column], "feature", None)
    if isinstance(inner, ClassLabel):
        return [[inner.int2str(tag) for tag in row] for row in _read_lists(rows, column, where)]
    kind = rows.data.table.schema.field(column).type
    if holds_lists(rows, column) and pa.types.is_floating(kind.value_type):
        raise DataError(f"{where}, column '{column}': contains fractions, but tags are words or whole numbers.")
    return [list(map(str, row)) for row in _read_lists(rows, column, where)]


def _check_not_blank(train: Sequence[Sequence[str]], found: set[str], where: str) -> None:
    blank = {tag for tag in found if not tag.strip()}
    if blank:
        wrong = [number for number, row in enumerate(train, 1) if blank & set(row)]
        raise DataError(f"{where}: {count(len(wrong), 'row')} with an empty tag ({row_numbers(wrong)}).")


def _order_tags(found: Iterable[str], feature: Any) -> list[str]:
    inner = getattr(feature, "feature", None)
    if isinstance(inner, ClassLabel):
        return [name for name in inner.names if name in set(found)]
    return sorted(found, key=_sort_key)


def _sort_key(tag: str) -> tuple[bool, str, str]:
    prefix, _, kind = tag.partition("-")
    return (tag != "O", kind, prefix)
