"""Groups rows of similar length into batches, so that little padding is computed.

`epoch_batches` is still a shuffle: the order depends on (seed, epoch), no row is dropped, and the rows that share a
batch change from epoch to epoch.
"""

from collections.abc import Iterator

import numpy as np

from hpo.training.batches.features import Indices

# Batches are cut from windows of so many batches, sorted by length: large enough that a batch has nearly one length,
# small enough that short and long rows mix over an epoch. An epoch has at least two windows where its size allows, so
# that other rows share a batch in the next one (3,000 short questions at batch 32: 6% padding; four windows pad 13%).
WINDOW = (8, 50)
WINDOWS = 2
# The fixed cost of a forward and backward pass on a CPU, in tokens. A batch's few long rows then get a pass of their
# own: with 192 to 300, MiniLM trains 16-token questions at batch 32 in 0.75 to 0.85 of the time; with 100, a 3-layer
# BERT is slower than without.
PASS_COST = 256


def epoch_batches(lengths: Indices, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """Return the batches of one epoch as arrays of row indices: every row once, similar lengths together.

    Deterministic in (seed, epoch). All batches hold `batch_size` rows but one, which holds the remainder.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    # The small batch is cut from the shuffled rows. Cut from the sorted ones it would hold the same few rows in every
    # epoch, and the rows of a small batch weigh more.
    rest = len(order) % batch_size
    batches = [order[:rest]] if rest else []
    window = batch_size * int(np.clip(len(order) // batch_size // WINDOWS, *WINDOW))
    for start in range(rest, len(order), window):
        rows = order[start : start + window]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches.extend(np.split(rows, range(batch_size, len(rows), batch_size)))
    return [batches[i] for i in rng.permutation(len(batches))]


def micro_batches(rows: Indices, lengths: Indices, size: int, tokens: int | None = None) -> list[Indices]:
    """Cut one batch into parts of at most `size` rows and `tokens` padded tokens that take the least time.

    A part takes the time of its padded tokens and of `PASS_COST` more. Without a limit of tokens (a GPU is busy only
    with large parts) a batch of at most `size` rows is one part.
    """
    if tokens is None:
        return [rows] if len(rows) <= size else list(_cut(_longest_first(rows, lengths), lengths, size, None))
    given, rows = rows, _longest_first(rows, lengths)
    padded = np.maximum(lengths[rows], 1)
    # Dynamic programming: cost[n] is the least time of the first n rows, first[n] the start of their last part.
    cost, first = np.zeros(len(rows) + 1), np.zeros(len(rows) + 1, np.int64)
    for end in range(1, len(rows) + 1):
        starts = np.arange(max(0, end - size), end)
        sizes = padded[starts] * (end - starts)
        costs = np.where((sizes <= tokens) | (starts == end - 1), cost[starts] + sizes + PASS_COST, np.inf)
        first[end] = starts[costs.argmin()]
        cost[end] = costs.min()
    parts, end = [], len(rows)
    while end > 0:
        parts.append(rows[first[end] : end])
        end = int(first[end])
    return parts[::-1] if len(parts) > 1 else [given]


def evaluation_batches(lengths: Indices, tokens: int) -> Iterator[Indices]:
    """Yield all rows once, longest first, in batches of about `tokens` padded tokens."""
    return _cut(_longest_first(np.arange(len(lengths)), lengths), lengths, len(lengths), tokens)


def _longest_first(rows: Indices, lengths: Indices) -> Indices:
    return rows[np.argsort(lengths[rows], kind="stable")[::-1]]


def _cut(rows: Indices, lengths: Indices, size: int, tokens: int | None) -> Iterator[Indices]:
    """Cut rows that are sorted longest first."""
    start = 0
    while start < len(rows):
        fitting = size if tokens is None else min(size, max(1, tokens // max(1, int(lengths[rows[start]]))))
        yield rows[start : start + fitting]
        start += fitting
