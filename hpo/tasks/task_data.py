"""Prepared data as a task hands it to training: the splits, what they were read from, and their fingerprint."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from datasets import Dataset
from numpy.typing import NDArray

from hpo.core.format import first_few
from hpo.data.columns import FOLD, GROUP, Columns
from hpo.data.splits.kfold import FoldIndices, fold_indices

BATCH = 20_000  # rows that exist as objects of Python at once


@dataclass(frozen=True)
class TaskData:
    """A user's data as a task uses it: validated, split, with canonical columns.

    `columns` maps a role (text, text_pair, label) to the source column. `notes` report which columns were recognized
    and which rows were created or dropped. `fingerprint` is the SHA-256 of the content, whatever file it came from.
    For regression, the rows hold standardized labels, and `scale` is their mean and standard deviation in the training
    split.
    """

    train: Dataset
    validation: Dataset
    test: Dataset | None
    label_names: tuple[str, ...]
    columns: Mapping[str, str]
    notes: tuple[str, ...]
    fingerprint: str
    scale: tuple[float, float] = (0.0, 1.0)
    summary: tuple[str, ...] = ()
    """Three lines: the task and its columns, with those not used; the rows by split; the labels."""

    @property
    def splits(self) -> dict[str, Dataset]:
        """The splits that exist, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: rows for split, rows in named.items() if rows is not None}

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each split; with folds, train and validation are counted together."""
        sizes = {split: len(rows) for split, rows in self.splits.items()}
        if self.folds:
            return {f"in {len(self.folds)} folds": sizes.pop("train") + sizes.pop("validation"), **sizes}
        return sizes

    @property
    def folds(self) -> FoldIndices:
        """The rows of each fold, as a split and indices into it; empty without k-fold validation.

        Validation is the first fold, train holds the others.
        """
        return fold_indices(self.splits)


@dataclass(frozen=True)
class SourceColumns:
    """Which columns of the user's data a task reads.

    `roles` maps a role to its column and is recorded with the study. `inputs` are the columns that every split needs,
    `label` the one that a test split without labels may lack (None: the task needs no label). `notes` name the columns
    that were recognized rather than configured.
    """

    roles: Mapping[str, str]
    inputs: tuple[str, ...]
    label: str | None
    notes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    """Columns that are read besides, such as the offsets of answers."""

    @classmethod
    def from_columns(cls, columns: Columns) -> "SourceColumns":
        """Return the columns of one or two texts and a label."""
        return cls(columns.by_role(), columns.text, columns.label, columns.notes)


@dataclass(frozen=True)
class Examples:
    """Each split's rows in canonical columns, the class names in order, and notes on rows dropped or changed."""

    splits: Mapping[str, Dataset]
    label_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Labels:
    """Each split's labels, one per row, the class names in order, and notes on values that were changed."""

    values: Mapping[str, Sequence[Any]]
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Encoded(Protocol):
    """An encoded split. An example may be several inputs: the windows of a long text."""

    @property
    def labels(self) -> NDArray[Any] | None:
        """One entry per input, [inputs] or [inputs, k]; None where each token has a label."""
        ...

    @property
    def columns(self) -> Mapping[str, tuple[Any, Any]]:
        """The model's inputs, and labels where an input has several.

        Each is the values of all inputs one after the other, and the offsets [inputs + 1] at which each input starts.
        """
        ...

    @property
    def inputs(self) -> Dataset:
        """The result of `Task.encode`: one row per input."""
        ...

    @property
    def rows(self) -> Dataset:
        """The rows it was encoded from: one row per example."""
        ...

    @property
    def processor(self) -> Any:
        """The processor it was encoded with, such as a tokenizer."""
        ...


def summarize(
    task: str, columns: SourceColumns, raw: Mapping[str, Dataset], sizes: Mapping[str, int], labels: str
) -> tuple[str, ...]:
    """Return `TaskData.summary`: what of the source splits `raw` is used, and what is not."""
    known = list(dict.fromkeys(name for rows in raw.values() for name in rows.column_names))
    prefix = columns.roles.get("choices")
    read = {*columns.roles.values(), *columns.inputs, columns.label, *columns.others, GROUP, FOLD}
    unused = [name for name in known if name not in read and not (prefix and name.startswith(prefix))]
    roles = ", ".join(f"{role} '{column}'" for role, column in columns.roles.items())
    dropped = sum(map(len, raw.values())) - sum(sizes.values())
    rows = ", ".join(f"{number:,} {split}" for split, number in sizes.items())
    return (
        f"{task}: {roles}; columns not used: {first_few(unused, 10) if unused else 'none'}",
        f"rows: {rows}; {f'{dropped:,}' if dropped > 0 else 'none'} dropped",
        f"{labels[:1].upper()}{labels[1:]}",
    )


def fingerprint(task: str, splits: Mapping[str, Dataset], label_names: Sequence[str]) -> str:
    """Return the SHA-256 over a task's name, its classes in order and every row in order."""
    digest = hashlib.sha256(json.dumps([task, list(label_names)]).encode())
    for split, rows in sorted(splits.items()):
        names = sorted(rows.column_names)
        digest.update(json.dumps([split, names, len(rows)]).encode())
        plain = rows.with_format(None)
        for start in range(0, len(rows), BATCH):
            for row in zip(*(plain[name][start : start + BATCH] for name in names), strict=True):
                digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def describe_classes(names: Sequence[str], noun: str = "classes") -> str:
    """Return the number of classes and the first few names, such as `2 classes: no, yes`."""
    plain = [" ".join(name.split()) for name in names]
    few = ", ".join(name if len(name) <= 30 else f"{name[:29]}…" for name in plain[:5])
    return f"{len(plain)} {noun}: {few}{', …' if len(plain) > 5 else ''}"


def class_head_config(names: Sequence[str]) -> dict[str, Any]:
    """Return the configuration of a head with one output per class, and the names of the classes."""
    numbered = dict(enumerate(names))
    return {
        "num_labels": len(numbered),
        "id2label": numbered,
        "label2id": {name: number for number, name in numbered.items()},
    }
