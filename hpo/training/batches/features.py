"""Encoded features in, tensors out: batches of similar length, so that little padding is computed.

`epoch_batches` is still a shuffle: each epoch's order comes from (seed, epoch), no example is dropped, and which
examples meet in a batch changes from epoch to epoch.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Batch = dict[str, torch.Tensor]
Tokens = Literal["all", "first", "last"]

Column = tuple[Any, Indices | None]  # an array, or what is indexed like one; and offsets
IGNORE_INDEX = -100  # the label of a token that has none: losses leave it out
NOTHING = Dataset.from_dict({})


@dataclass(frozen=True)
class Features:
    """Encoded inputs, flat: column → (values, offsets); input i holds values[offsets[i]:offsets[i + 1]].

    Where all inputs have one shape (images) there are no offsets, and input i is values[i]. `lengths` is what an input
    takes to compute, in tokens; an entry of an input may be an array: of an input that is several texts, the tokens of
    all at one place. `labels` has one entry an input, of shape [n] or [n, k]; where an input has several
    (one a token) they are a column and it is None. `inputs` is what the task encoded and `rows` what from, where
    metrics are to be computed.
    """

    columns: dict[str, Column]
    labels: NDArray[Any] | None
    lengths: Indices
    pad_values: dict[str, int]
    key: str = ""  # of what it was encoded from and how; empty: no name to keep anything by
    inputs: Dataset = NOTHING
    rows: Dataset = NOTHING
    finish: Callable[[Batch], Batch] = lambda batch: batch  # what a model is given, of the padded columns
    processor: Any = None  # what it was made with
    joined: tuple["Features", ...] = ()  # what it is made of, where that is several

    @property
    def parts(self) -> tuple["Features", ...]:
        """What these are the examples of, one after the other: each may have a key of its own."""
        return self.joined or (self,)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def ragged(self) -> bool:
        """Whether inputs differ in length, so that a batch is padded."""
        return any(offsets is not None for name, (_, offsets) in self.columns.items() if name != "labels")

    @property
    def longest(self) -> int:
        """Most tokens of an input, or of what is to be written of it."""
        _, written = self.columns.get("labels", (None, None))
        return max(int(self.lengths.max()), 0 if written is None else int(np.diff(written).max()))

    def states(self) -> Indices:
        """How many vectors each input's hidden state is: one a place, or one of all where no batch is padded."""
        found = [offsets for name, (_, offsets) in self.columns.items() if name != "labels" and offsets is not None]
        return np.diff(found[0]) if found else np.ones_like(self.lengths)

    @classmethod
    def from_dataset(
        cls,
        encoded: Any,
        pad_token_id: int,
        key: str = "",
        rows: Dataset = NOTHING,
        tensors: Mapping[str, Column] = MappingProxyType({}),
    ) -> "Features":
        """Take a task's encoded `datasets.Dataset` (memory-mapped Arrow) without copying its values.

        Columns whose name begins with `_` are not for the model. `tensors` are columns that are kept elsewhere.
        """
        table = encoded.data.table.combine_chunks()
        columns: dict[str, Column] = dict(tensors)
        labels = None
        for name in table.column_names:
            column = table.column(name).combine_chunks()
            if name.startswith("_") or name == "length":
                continue
            if hasattr(column, "offsets"):
                columns[name] = (column.values.to_numpy(), column.offsets.to_numpy().astype(np.int64))
            elif name == "labels":
                vectors = hasattr(column.type, "list_size")
                labels = column.flatten().to_numpy().reshape(len(column), -1) if vectors else column.to_numpy()
        pads = {"input_ids": pad_token_id, "labels": IGNORE_INDEX}
        return cls(columns, labels, table.column("length").to_numpy().astype(np.int64), pads, key, encoded, rows)

    def concatenate(self, other: "Features") -> "Features":
        """The examples of both, these first: to train on."""
        columns = {name: _joined(column, other.columns[name]) for name, column in self.columns.items()}
        labels = None
        if self.labels is not None and other.labels is not None:
            labels = np.concatenate([self.labels, other.labels])
        key = hashlib.sha256(f"{self.key} {other.key}".encode()).hexdigest() if self.key and other.key else ""
        lengths = np.concatenate([self.lengths, other.lengths])
        joined = (*self.parts, *other.parts)
        return Features(
            columns,
            labels,
            lengths,
            self.pad_values,
            key,
            finish=self.finish,
            processor=self.processor,
            joined=joined,
        )

    def all_labels(self) -> NDArray[Any]:
        """The labels of all inputs: one entry an input, or where each has several, these after each other."""
        if self.labels is not None:
            return self.labels
        values, offsets = self.columns["labels"]
        return np.asarray(values if offsets is None else values[offsets[0] : offsets[-1]])

    def changed(self, change: Callable[[Batch], Batch]) -> "Features":
        """The same examples, their batches changed before they are finished."""
        return replace(self, finish=lambda batch: self.finish(change(batch)))

    def only(self, tokens: Tokens) -> "Features":
        """The same examples, of each the first or the last token alone."""
        if tokens == "all":
            return self
        columns: dict[str, Column] = {}
        for name, (values, offsets) in self.columns.items():
            assert offsets is not None
            places = offsets[:-1] if tokens == "first" else offsets[1:] - 1
            columns[name] = (values[places], np.arange(len(self) + 1))
        return replace(self, columns=columns, lengths=np.ones_like(self.lengths), joined=())

    def collate(self, rows: Indices) -> Batch:
        """The examples `rows` as a model is given them: tensors of shape [len(rows), longest, …], and their mask.

        It tells padding from what an input holds, unless the task encoded one of its own.
        """
        batch: Batch = {}
        for name, (values, offsets) in self.columns.items():
            if offsets is None:
                batch[name] = torch.from_numpy(_numbers(np.asarray(values[rows])))
                continue
            sizes = offsets[rows + 1] - offsets[rows]
            mask = np.arange(sizes.max())[None, :] < sizes[:, None]
            found = _numbers(np.concatenate([values[offsets[row] : offsets[row + 1]] for row in rows]))
            padded = np.full((*mask.shape, *found.shape[1:]), self.pad_values.get(name, 0), dtype=found.dtype)
            padded[mask] = found
            batch[name] = torch.from_numpy(padded)
            if name != "labels" and "attention_mask" not in self.columns:
                batch["attention_mask"] = torch.from_numpy(mask.astype(np.int64))
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self.labels[rows])
        return self.finish(batch)


class Joined:
    """Two arrays after each other without a copy: they may be files larger than memory."""

    def __init__(self, first: Any, second: Any) -> None:
        self._first, self._second = first, second
        self.shape = (len(first) + len(second), *first.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.concatenate([self._first, self._second], dtype=dtype)

    def __getitem__(self, places: Any) -> NDArray[Any]:
        """A slice, which lies in one of the two, or the rows at an array of places."""
        border = len(self._first)
        if isinstance(places, slice):
            if places.start < border:
                return np.asarray(self._first[places])
            return np.asarray(self._second[places.start - border : places.stop - border])
        early = places < border
        found = np.empty((len(places), *self.shape[1:]), np.asarray(self._first[:0]).dtype)
        found[early], found[~early] = self._first[places[early]], self._second[places[~early] - border]
        return found


def _joined(one: Column, other: Column) -> Column:
    (values, offsets), (more, more_offsets) = one, other
    if offsets is not None and more_offsets is not None:
        given = ((values, offsets), (more, more_offsets))
        values, more = (part if isinstance(part, Joined) else part[at[0] : at[-1]] for part, at in given)
        offsets = np.concatenate([offsets - offsets[0], more_offsets[1:] - more_offsets[0] + offsets[-1] - offsets[0]])
    large = isinstance(values, np.memmap | Joined)
    return Joined(values, more) if large else np.concatenate([values, more]), offsets


def _numbers(values: NDArray[Any]) -> NDArray[Any]:
    """As a model reads them: what is stored in 16 bits as float32, tokens as int64; pixels stay bytes."""
    if values.dtype == np.uint8:
        return values
    return values.astype(np.float32 if values.dtype.kind == "f" else np.int64)


def pop_labels(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Take the labels out of a batch; a decoder that is to write them gets them, moved right, as its inputs."""
    labels = batch.pop("labels")
    moved_right = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if moved_right is not None:
        batch["decoder_input_ids"] = moved_right(labels)
    return labels
