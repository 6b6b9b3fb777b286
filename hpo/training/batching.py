"""Ragged features in, padded tensors out: batches of similar length, so that little padding is computed.

`epoch_batches` is still a shuffle: each epoch's order comes from (seed, epoch), no example is dropped, and which
examples meet in a batch changes from epoch to epoch.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

Indices = NDArray[np.int64]
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


IGNORED = -100  # the label of a token that has none: losses leave it out
NOTHING = Dataset.from_dict({})


@dataclass(frozen=True)
class Features:
    """Encoded inputs, flat: column → (values, offsets); input i holds values[offsets[i]:offsets[i + 1]].

    `labels` has one entry an input, of shape [n] or [n, k]; where each token has a label they are a column and it is
    None. `inputs` is what the task encoded and `rows` what from, where metrics are to be computed.
    """

    columns: dict[str, tuple[NDArray[Any], Indices]]
    labels: NDArray[Any] | None
    lengths: Indices
    pad_values: dict[str, int]
    key: str = ""  # of what it was encoded from and how; empty: no name to keep anything by
    inputs: Dataset = NOTHING
    rows: Dataset = NOTHING

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def from_dataset(cls, encoded: Any, pad_token_id: int, key: str = "", rows: Dataset = NOTHING) -> "Features":
        """Take a task's encoded `datasets.Dataset` (memory-mapped Arrow) without copying its values.

        Columns whose name begins with `_` are not for the model.
        """
        table = encoded.data.table.combine_chunks()
        columns: dict[str, tuple[NDArray[Any], Indices]] = {}
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
        return cls(columns, labels, np.diff(columns["input_ids"][1]), pads, key, encoded, rows)

    def concatenate(self, other: "Features") -> "Features":
        """The examples of both, these first: to train on."""
        columns = {}
        for name, (values, offsets) in self.columns.items():
            more_values, more_offsets = other.columns[name]
            columns[name] = (
                np.concatenate([values[offsets[0] : offsets[-1]], more_values[more_offsets[0] : more_offsets[-1]]]),
                np.concatenate([offsets - offsets[0], more_offsets[1:] - more_offsets[0] + offsets[-1] - offsets[0]]),
            )
        labels = None
        if self.labels is not None and other.labels is not None:
            labels = np.concatenate([self.labels, other.labels])
        key = hashlib.sha256(f"{self.key} {other.key}".encode()).hexdigest() if self.key and other.key else ""
        return Features(columns, labels, np.concatenate([self.lengths, other.lengths]), self.pad_values, key)

    def only(self, tokens: Tokens) -> "Features":
        """The same examples, of each the first or the last token alone."""
        if tokens == "all":
            return self
        columns: dict[str, tuple[NDArray[Any], Indices]] = {}
        for name, (values, offsets) in self.columns.items():
            places = offsets[:-1] if tokens == "first" else offsets[1:] - 1
            columns[name] = (values[places], np.arange(len(self) + 1))
        return replace(self, columns=columns, lengths=np.ones_like(self.lengths))

    def collate(self, rows: Indices) -> dict[str, torch.Tensor]:
        """Pad the examples `rows` to the longest of them: tensors of shape [len(rows), longest]."""
        longest = int(self.lengths[rows].max())
        mask = np.arange(longest)[None, :] < self.lengths[rows][:, None]
        batch: dict[str, torch.Tensor] = {}
        for name, (values, offsets) in self.columns.items():
            padded = np.full((len(rows), longest), self.pad_values.get(name, 0), dtype=np.int64)
            padded[mask] = np.concatenate([values[offsets[row] : offsets[row + 1]] for row in rows])
            batch[name] = torch.from_numpy(padded)
        batch["attention_mask"] = torch.from_numpy(mask.astype(np.int64))
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self.labels[rows])
        return batch


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
