"""What rows must be before anything is trained: texts that are there, and enough classes to tell apart."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import pyarrow as pa
from datasets import Dataset

from hpo.core.format import count, first_few, row_numbers
from hpo.data.columns import column_values, holds_strings
from hpo.data.splits.create import text_keys
from hpo.data.splits.kfold import check_fold_classes
from hpo.errors import DataError


def read_texts(rows: Dataset, column: str, origin: str) -> list[str]:
    """A text column as strings, an empty one where there is none. Raises `DataError` for another type."""
    kind = rows.data.table.schema.field(column).type
    if not holds_strings(rows, column) and not pa.types.is_null(kind):
        strings = [name for name in rows.column_names if holds_strings(rows, name)]
        shown = "values of several types" if pa.types.is_struct(kind) else str(kind)
        raise DataError(
            f"data.text: {origin}, column '{column}' holds {shown}, not text. Columns of text: "
            f"{', '.join(strings) or 'none'}."
        )
    return ["" if value is None else str(value) for value in column_values(rows, column)]


def find_empty(texts: Sequence[Sequence[str]], origin: str, drop: bool) -> tuple[set[int], list[str]]:
    """The places of rows of which every text is empty, and a note. Refused unless `drop`, with their number."""
    empty = [place for place, row in enumerate(zip(*texts, strict=True)) if not any(text.strip() for text in row)]
    if not empty:
        return set(), []
    share = f"{len(empty)} of {count(len(texts[0]), 'row')}"
    if not drop:
        raise DataError(
            f"{origin}: {share} with an empty text ({row_numbers([place + 1 for place in empty])}). Take them out, or "
            "set `data.drop_empty: true`."
        )
    return set(empty), [f"{share} of {origin} dropped: no text in it"]


def check_classes(splits: Mapping[str, Dataset], names: Sequence[str], origins: Mapping[str, str]) -> list[str]:
    """Refuse what no classifier can learn from or be judged by; returns notes on what is only doubtful."""
    counts = {split: Counter(column_values(rows, "label")) for split, rows in splits.items()}
    train = counts["train"]
    notes = check_fold_classes(splits, names, lambda rows: [[label] for label in column_values(rows, "label")])
    if len(splits["train"]) < 2:
        raise DataError(f"{origins['train']}: 1 row is too few to train on: at least two of each class are needed.")
    if len(train) < 2:
        only = names[next(iter(train))]
        raise DataError(
            f"{origins['train']}: every training label is '{only}': a classifier needs at least two classes."
        )
    advice = "For stratified splits, give hpo the training file alone as `data.path`"
    for split in ("validation", "test"):
        if split not in counts:
            continue
        where = origins.get(split, f"{split}, made from {origins['train']}")
        unknown = sorted(set(counts[split]) - set(train))
        if unknown:
            listed = first_few([f"{names[number]} ({count(counts[split][number], 'row')})" for number in unknown])
            raise DataError(
                f"{where}: {count(len(unknown), 'class', 'classes')} that no training row has and nothing can learn: "
                f"{listed}. Add training rows, or take these out."
            )
        if len(counts[split]) < 2:
            raise DataError(
                f"{where}: every {split} label is '{names[next(iter(counts[split]))]}': nothing can be judged by it. "
                f"{advice if split in origins else 'Give more rows of the other classes'}."
            )
        absent = [names[c] for c in sorted(set(train) - set(counts[split]))]
        if absent:
            notes.append(
                f"{count(len(absent), 'class', 'classes')} absent from {split}: {first_few(absent)}"
                f"{f'. {advice}' if split in origins else ': too few rows to share'}"
            )
    return notes


def count_conflicts(splits: Mapping[str, Dataset]) -> list[str]:
    """A note on texts that stand in one split with different labels: they put a ceiling on any score."""
    found = []
    for split, rows in splits.items():
        labels = defaultdict(set)
        for key, label in zip(text_keys(rows), column_values(rows, "label"), strict=True):
            labels[key].add(label)
        conflicting = sum(len(given) > 1 for given in labels.values())
        if conflicting:
            found.append((split, conflicting))
    if not found:
        return []
    total = sum(rows for _, rows in found)
    each = ", ".join(f"{rows} in {split}" for split, rows in found)
    return [f"{count(total, 'text')} with more than one label ({each}): no model can get all right"]
