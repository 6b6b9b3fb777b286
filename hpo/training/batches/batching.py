"""Encoded features in, tensors out: batches of similar length, so that little padding is computed.

`epoch_batches` is still a shuffle: each epoch's order comes from (seed, epoch), no example is dropped, and which
examples meet in a batch changes from epoch to epoch.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
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

# Batches are cut from windows of so many batches sorted by length: large enough that a batch is nearly of one length,
# small enough that short and long examples mix over an epoch. Where an epoch allows, it has two windows at least, so
# that other examples meet in the next epoch (3,000 short questions at batch 32: 6% padding; four windows pad 13%).
WINDOW = (8, 50)
WINDOWS = 2
# What a forward and backward pass costs on a CPU beside its tokens, in tokens. A batch's few long examples then go
# apart: with 192 to 300 MiniLM trains 16-token questions at batch 32 in 0.75 to 0.85 of the time; with 100 a 3-layer
# BERT takes longer than without.
PART = 256


Column = tuple[Any, Indices | None]  # an array, or what is indexed like one; and offsets
IGNORED = -100  # the label of a token that has none: losses leave it out
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
        pads = {"input_ids": pad_token_id, "labels": IGNORED}
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


def take_labels(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Take the labels out of a batch; a decoder that is to write them gets them, moved right, as its inputs."""
    labels = batch.pop("labels")
    moved_right = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if moved_right is not None:
        batch["decoder_input_ids"] = moved_right(labels)
    return labels


def epoch_batches(lengths: Indices, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """The batches of one epoch, as arrays of row numbers: every row once, similar lengths together.

    Deterministic in (seed, epoch). All batches hold `batch_size` rows but one, which holds the rest.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    # The small batch is anyone's: cut from the sorted rows, it would be the same few examples in every epoch, and a
    # small batch's examples weigh more.
    rest = len(order) % batch_size
    batches = [order[:rest]] if rest else []
    window = batch_size * int(np.clip(len(order) // batch_size // WINDOWS, *WINDOW))
    for start in range(rest, len(order), window):
        rows = order[start : start + window]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches.extend(np.split(rows, range(batch_size, len(rows), batch_size)))
    return [batches[i] for i in rng.permutation(len(batches))]


def micro_batches(rows: Indices, lengths: Indices, size: int, tokens: int | None = None) -> list[Indices]:
    """Cut one batch into parts of at most `size` rows; with `tokens`, of so many padded tokens, in the least time.

    The time of a part is its padded tokens' and that of `PART` tokens more. Without a limit of tokens (a GPU is busy
    only with large parts) a batch that fits stays whole.
    """
    if tokens is None:
        return [rows] if len(rows) <= size else list(_cut(_longest_first(rows, lengths), lengths, size, None))
    given, rows = rows, _longest_first(rows, lengths)
    padded = np.maximum(lengths[rows], 1)
    # cost[n] is the least time of the first n rows, begin[n] where their last part starts (dynamic programming).
    cost, begin = np.zeros(len(rows) + 1), np.zeros(len(rows) + 1, np.int64)
    for end in range(1, len(rows) + 1):
        starts = np.arange(max(0, end - size), end)
        sizes = padded[starts] * (end - starts)
        costs = np.where((sizes <= tokens) | (starts == end - 1), cost[starts] + sizes + PART, np.inf)
        begin[end] = starts[costs.argmin()]
        cost[end] = costs.min()
    parts, end = [], len(rows)
    while end > 0:
        parts.append(rows[begin[end] : end])
        end = int(begin[end])
    return parts[::-1] if len(parts) > 1 else [given]


def evaluation_batches(lengths: Indices, tokens: int) -> Iterator[Indices]:
    """All rows once, longest first, in batches of about `tokens` padded tokens."""
    return _cut(_longest_first(np.arange(len(lengths)), lengths), lengths, len(lengths), tokens)


def _longest_first(rows: Indices, lengths: Indices) -> Indices:
    return rows[np.argsort(lengths[rows], kind="stable")[::-1]]


def _cut(rows: Indices, lengths: Indices, size: int, tokens: int | None) -> Iterator[Indices]:
    """Cut rows that stand longest first."""
    start = 0
    while start < len(rows):
        fitting = size if tokens is None else min(size, max(1, tokens // max(1, int(lengths[rows[start]]))))
        yield rows[start : start + fitting]
        start += fitting
