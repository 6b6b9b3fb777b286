"""Batches: a shuffle that stays a shuffle, with little padding; rows come back in their order."""

import numpy as np
import pytest
import torch

from hpo.training.batches.batching import epoch_batches, evaluation_batches, micro_batches
from tests.training.conftest import make_features


@pytest.mark.parametrize(("rows", "size"), [(1, 8), (7, 8), (48, 8), (1003, 32), (20_000, 16)])
def test_an_epoch_is_each_row_once_and_reproducible(rows: int, size: int) -> None:
    lengths = np.random.default_rng(0).integers(3, 200, rows)
    first = epoch_batches(lengths, size, seed=5, epoch=0)
    assert sorted(np.concatenate(first).tolist()) == list(range(rows))
    assert sorted(map(len, first)) == sorted([size] * (rows // size) + [rows % size] * (rows % size > 0))
    again = epoch_batches(lengths, size, seed=5, epoch=0)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))


def test_other_examples_meet_in_the_next_epoch() -> None:
    lengths = np.arange(3, 1603)  # all of another length: the worst case for a shuffle of sorted windows
    together = [{frozenset(map(int, batch)) for batch in epoch_batches(lengths, 32, 5, epoch)} for epoch in (0, 1)]
    overlap = max(len(one & other) for one in together[0] for other in together[1])
    assert overlap < 24
    assert not together[0] & together[1]
    assert not together[0] & {frozenset(map(int, batch)) for batch in epoch_batches(lengths, 32, 6, 0)}


def test_little_padding() -> None:
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.lognormal(4, 0.6, 10_000).astype(int) + 3, 512)

    def share_of_padding(batches: list[np.ndarray]) -> float:
        padded = sum(len(rows) * lengths[rows].max() for rows in batches)
        return 1 - lengths.sum() / padded

    assert share_of_padding(epoch_batches(lengths, 32, 0, 0)) < 0.08
    assert share_of_padding(np.array_split(rng.permutation(10_000), 313)) > 0.5  # what a plain shuffle pads
    assert share_of_padding(list(evaluation_batches(lengths, 8_192))) < 0.05


def test_no_example_is_always_in_the_small_batch() -> None:
    lengths = np.arange(3, 68)  # 65 rows: one of each epoch is alone
    alone = [min(epoch_batches(lengths, 32, 0, epoch), key=len)[0] for epoch in range(40)]
    assert len(set(alone)) > 20
    assert 15 < np.mean(alone) < 50


def test_collate_and_concatenate() -> None:
    one, other = make_features(5, seed=0, pad=1), make_features(4, seed=1, pad=1)
    both = one.concatenate(other)
    batch = both.collate(np.array([7, 0, 8]))
    for place, (source, row) in enumerate([(other, 2), (one, 0), (other, 3)]):
        values, offsets = source.columns["input_ids"]
        tokens = values[offsets[row] : offsets[row + 1]]
        assert batch["input_ids"][place, : len(tokens)].tolist() == tokens.tolist()
        assert (batch["input_ids"][place, len(tokens) :] == 1).all()
        assert batch["attention_mask"][place].sum() == len(tokens)
        assert batch["labels"][place] == source.labels[row]
    assert batch["input_ids"].dtype == torch.int64
    # A part of a larger table: its offsets do not begin at 0.
    tail = type(one)(
        {"input_ids": (one.columns["input_ids"][0], one.columns["input_ids"][1][2:])},
        one.labels[2:],
        one.lengths[2:],
        one.pad_values,
    )
    joined = tail.concatenate(other)
    assert torch.equal(joined.collate(np.array([0, 4]))["input_ids"], both.collate(np.array([2, 6]))["input_ids"])


def test_micro_batches_and_evaluation_cover_all_rows() -> None:
    lengths = make_features(50).lengths
    rows = np.arange(50)[::-1]
    assert sorted(np.concatenate(micro_batches(rows, lengths, 7)).tolist()) == list(range(50))
    small = micro_batches(rows, lengths, 7, tokens=30)
    assert sorted(np.concatenate(small).tolist()) == list(range(50))
    assert all(len(part) * lengths[part].max() <= 30 and len(part) <= 7 for part in small)
    parts = list(evaluation_batches(lengths, tokens=64))
    assert sorted(np.concatenate(parts).tolist()) == list(range(50))
    assert all(len(part) * lengths[part].max() <= 64 for part in parts)
