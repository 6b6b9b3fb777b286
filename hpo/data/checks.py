"""Checks on rows before training: texts are not empty, and there are enough classes to distinguish."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from hpo.core.format import count, first_few, row_numbers
from hpo.data.columns import column_values, holds_strings
from hpo.data.splits.create import text_keys
from hpo.data.splits.kfold import check_fold_classes
from hpo.errors import DataError


def read_texts(rows: Dataset, column: str, origin: str) -> list[str]:
    """Return a text column as strings, null as an empty one. Raises `DataError` for any other type."""
    return text_column(rows, column, origin).to_pylist()


def text_column(rows: Dataset, column: str, origin: str) -> pa.ChunkedArray:
    """Return a text column as `read_texts`, in Arrow: 1.4 million strings of Python take 100 MB more."""
    kind = rows.data.table.schema.field(column).type
    if not holds_strings(rows, column) and not pa.types.is_null(kind):
        strings = [name for name in rows.column_names if holds_strings(rows, name)]
        shown = "values of several types" if pa.types.is_struct(kind) else str(kind)
        raise DataError(
            f"data.text: {origin}, column '{column}' contains {shown}, not text. Columns of text: "
            f"{', '.join(strings) or 'none'}."
        )
    return pc.fill_null(rows.data.table.column(column).cast(pa.string()), "")


def blank_rows(columns: Sequence[pa.ChunkedArray]) -> list[int]:
    """Return the indices of rows that have white space only in all of the text columns."""
    blank = [pc.equal(pc.utf8_trim_whitespace(column), "") for column in columns]
    found = blank[0]
    for other in blank[1:]:
        found = pc.and_(found, other)
    return np.flatnonzero(found.to_numpy()).tolist()


def find_empty(texts: Sequence[Sequence[str]], origin: str, drop: bool) -> tuple[set[int], list[str]]:
    """Return the indices of rows whose texts are all empty, and a note with their number.

    `texts` are the text columns. Raises `DataError` where there are such rows, unless `drop`.
    """
    empty = [index for index, row in enumerate(zip(*texts, strict=True)) if not any(text.strip() for text in row)]
    return report_empty(empty, len(texts[0]), origin, drop)


def report_empty(empty: Sequence[int], rows: int, origin: str, drop: bool) -> tuple[set[int], list[str]]:
    """Return the indices of `empty` rows and a note, as `find_empty`."""
    if not empty:
        return set(), []
    share = f"{len(empty)} of {count(rows, 'row')}"
    if not drop:
        raise DataError(
            f"{origin}: {share} with an empty text ({row_numbers([index + 1 for index in empty])}). Remove them, or "
            "set `data.drop_empty: true`."
        )
    return set(empty), [f"{share} of {origin} dropped: empty text"]


def check_classes(splits: Mapping[str, Dataset], names: Sequence[str], origins: Mapping[str, str]) -> list[str]:
    """Check that the classes can be learned and evaluated; return notes on doubtful ones.

    Raises `DataError` for fewer than two rows or classes, and for a class that no training row has.
    """
    counts = {split: Counter(column_values(rows, "label")) for split, rows in splits.items()}
    notes = check_fold_classes(splits, names, lambda rows: [[label] for label in column_values(rows, "label")])
    if len(splits["train"]) < 2:
        raise DataError(f"{origins['train']}: 1 row is too few to train on: each class needs at least two.")
    if len(counts["train"]) < 2:
        only = names[next(iter(counts["train"]))]
        raise DataError(
            f"{origins['train']}: every training label is '{only}': a classifier needs at least two classes."
        )
    for split in ("validation", "test"):
        if split in counts:
            notes += _check_held_out(split, counts[split], counts["train"], names, origins)
    return notes


def _check_held_out(
    split: str, found: Counter[int], train: Counter[int], names: Sequence[str], origins: Mapping[str, str]
) -> list[str]:
    """Check the classes of validation or test against those of train."""
    where = origins.get(split, f"{split}, taken from {origins['train']}")
    advice = "For stratified splits, give hpo the training file alone as `data.path`"
    unknown = sorted(set(found) - set(train))
    if unknown:
        listed = first_few([f"{names[number]} ({count(found[number], 'row')})" for number in unknown])
        raise DataError(
            f"{where}: {count(len(unknown), 'class', 'classes')} that no training row has, so that it cannot be "
            f"learned: {listed}. Add training rows, or remove these."
        )
    if len(found) < 2:
        raise DataError(
            f"{where}: every {split} label is '{names[next(iter(found))]}', so that no metric is meaningful. "
            f"{advice if split in origins else 'Add rows of the other classes'}."
        )
    absent = [names[number] for number in sorted(set(train) - set(found))]
    if not absent:
        return []
    reason = f". {advice}" if split in origins else ": too few rows to split"
    return [f"{count(len(absent), 'class', 'classes')} absent from {split}: {first_few(absent)}{reason}"]


def count_conflicts(splits: Mapping[str, Dataset]) -> list[str]:
    """Return a note on texts, or files, that have different labels within a split: they limit every score."""
    found = []
    noun = "file" if any("digest" in rows.column_names for rows in splits.values()) else "text"
    for split, rows in splits.items():
        labels: dict[str, int] = {}
        differing = {
            key
            for key, label in zip(text_keys(rows), column_values(rows, "label"), strict=True)
            if labels.setdefault(key, label) != label
        }
        conflicting = len(differing)
        if conflicting:
            found.append((split, conflicting))
    if not found:
        return []
    total = sum(rows for _, rows in found)
    each = ", ".join(f"{rows} in {split}" for split, rows in found)
    return [f"{count(total, noun)} with more than one label ({each}): no model can predict all of them correctly"]
