"""Holds a split's encoded inputs as flat arrays (`Features`) and collates rows of them into padded tensors."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

from hpo.tasks.inference import pad_batch

Indices = NDArray[np.int64]
Batch = dict[str, torch.Tensor]
Tokens = Literal["all", "first", "last"]
Column = tuple[Any, Indices | None]  # an array, or an object indexed like one; and offsets

IGNORE_INDEX = -100  # the label of a token without one: losses leave it out
EMPTY = Dataset.from_dict({})


@dataclass(frozen=True)
class Features:
    """Encoded inputs, flat: column → (values, offsets); input i is values[offsets[i]:offsets[i + 1]].

    Where all inputs have one shape (images) there are no offsets, and input i is values[i]. An entry of an input may
    be an array: for an input of several texts, the tokens of all texts at one position.
    """

    columns: dict[str, Column]
    labels: NDArray[Any] | None  # one entry an input, [n] or [n, k]; None: an input has several, in a column "labels"
    lengths: Indices  # compute cost per input, in tokens
    pad_values: dict[str, int]
    key: str = ""  # digest of the rows and of how they were encoded; empty: nothing can be cached by it
    inputs: Dataset = EMPTY  # the output of `Task.encode`, where metrics are to be computed
    rows: Dataset = EMPTY  # the rows it was encoded from
    prepare_batch: Callable[[Batch], Batch] = lambda batch: batch  # from padded columns to a model's inputs
    processor: Any = None  # the tokenizer, image processor or feature extractor that encoded the rows
    joined: tuple["Features", ...] = ()  # the parts that these were concatenated from

    @property
    def parts(self) -> tuple["Features", ...]:
        """The features that these are the concatenation of, each with its own key."""
        return self.joined or (self,)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def ragged(self) -> bool:
        """Whether inputs differ in length, so that a batch is padded."""
        return any(offsets is not None for name, (_, offsets) in self.columns.items() if name != "labels")

    @property
    def longest(self) -> int:
        """The most tokens of an input, or of its labels where these are to be generated."""
        _, targets = self.columns.get("labels", (None, None))
        return max(int(self.lengths.max()), 0 if targets is None else int(np.diff(targets).max()))

    def state_counts(self) -> Indices:
        """Return each input's number of hidden-state vectors: one a position, or one in all where nothing is padded."""
        found = [offsets for name, (_, offsets) in self.columns.items() if name != "labels" and offsets is not None]
        return np.diff(found[0]) if found else np.ones_like(self.lengths)

    @classmethod
    def from_dataset(
        cls,
        encoded: Any,
        pad_token_id: int,
        key: str = "",
        rows: Dataset = EMPTY,
        tensors: Mapping[str, Column] = MappingProxyType({}),
    ) -> "Features":
        """Wrap a task's encoded `datasets.Dataset` (memory-mapped Arrow) without copying its values.

        Columns whose names start with `_` are not inputs of the model. `tensors` are columns stored elsewhere.
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
        """Return the inputs of both, these first, to train on: without `inputs` and `rows`."""
        columns = {name: _concatenated(column, other.columns[name]) for name, column in self.columns.items()}
        labels = None
        if self.labels is not None and other.labels is not None:
            labels = np.concatenate([self.labels, other.labels])
        key = hashlib.sha256(f"{self.key} {other.key}".encode()).hexdigest() if self.key and other.key else ""
        return Features(
            columns,
            labels,
            np.concatenate([self.lengths, other.lengths]),
            self.pad_values,
            key,
            prepare_batch=self.prepare_batch,
            processor=self.processor,
            joined=(*self.parts, *other.parts),
        )

    def all_labels(self) -> NDArray[Any]:
        """Return the labels of all inputs: one entry an input or, where an input has several, one after the other."""
        if self.labels is not None:
            return self.labels
        values, offsets = self.columns["labels"]
        return np.asarray(values if offsets is None else values[offsets[0] : offsets[-1]])

    def with_transform(self, transform: Callable[[Batch], Batch]) -> "Features":
        """Return the same inputs, each padded batch passed through `transform` before `prepare_batch`."""
        return replace(self, prepare_batch=lambda batch: self.prepare_batch(transform(batch)))

    def select_tokens(self, tokens: Tokens) -> "Features":
        """Return the same inputs with their first or last token only."""
        if tokens == "all":
            return self
        columns: dict[str, Column] = {}
        for name, (values, offsets) in self.columns.items():
            assert offsets is not None
            index = offsets[:-1] if tokens == "first" else offsets[1:] - 1
            columns[name] = (values[index], np.arange(len(self) + 1))
        return replace(self, columns=columns, lengths=np.ones_like(self.lengths), joined=())

    def collate(self, rows: Indices) -> Batch:
        """Return the inputs `rows` as a model's batch: tensors of shape [len(rows), longest, …], labels included.

        `attention_mask` is 0 at padding; it is added here unless the task encoded one.
        """
        batch = pad_batch({name: _take(column, rows) for name, column in self.columns.items()}, self.pad_values)
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self.labels[rows])
        return self.prepare_batch(batch)


class ConcatenatedArray:
    """Two arrays concatenated without a copy: they may be memory-mapped files larger than memory."""

    def __init__(self, first: Any, second: Any) -> None:
        self._first, self._second = first, second
        self.shape = (len(first) + len(second), *first.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.concatenate([self._first, self._second], dtype=dtype)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Return a slice, which must lie in one of the two arrays, or the rows at an array of indices."""
        border = len(self._first)
        if isinstance(index, slice):
            if index.start < border:
                return np.asarray(self._first[index])
            return np.asarray(self._second[index.start - border : index.stop - border])
        in_first = index < border
        found = np.empty((len(index), *self.shape[1:]), np.asarray(self._first[:0]).dtype)
        found[in_first], found[~in_first] = self._first[index[in_first]], self._second[index[~in_first] - border]
        return found


def _concatenated(one: Column, other: Column) -> Column:
    (values, offsets), (more, more_offsets) = one, other
    if offsets is not None and more_offsets is not None:
        given = ((values, offsets), (more, more_offsets))
        values, more = (part if isinstance(part, ConcatenatedArray) else part[at[0] : at[-1]] for part, at in given)
        offsets = np.concatenate([offsets - offsets[0], more_offsets[1:] - more_offsets[0] + offsets[-1] - offsets[0]])
    large = isinstance(values, np.memmap | ConcatenatedArray)
    return ConcatenatedArray(values, more) if large else np.concatenate([values, more]), offsets


def _take(column: Column, rows: Indices) -> list[NDArray[Any]] | NDArray[Any]:
    """Return a column's values of `rows`: an array each, or one array where all inputs have one shape."""
    values, offsets = column
    if offsets is None:
        return np.asarray(values[rows])
    return [values[offsets[row] : offsets[row + 1]] for row in rows]


def pop_labels(model: Any, batch: Batch) -> torch.Tensor:
    """Remove the labels from a batch and return them; for an encoder-decoder, add its decoder's inputs (in place)."""
    labels = batch.pop("labels")
    shift_right = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if shift_right is not None:
        batch["decoder_input_ids"] = shift_right(labels)
    return labels
