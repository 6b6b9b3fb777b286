"""Batches: each row once, in another order in each epoch, with little padding."""

import numpy as np
import pytest

from hpo.training.batches.batching import epoch_batches, evaluation_batches, micro_batches
from tests.training.conftest import make_features


@pytest.mark.parametrize(("rows", "size"), [(1, 8), (7, 8), (48, 8), (1003, 32), (20_000, 16)])
def test_epoch_has_each_row_once_and_is_reproducible(rows: int, size: int) -> None:
    lengths = np.random.default_rng(0).integers(3, 200, rows)
    first = epoch_batches(lengths, size, seed=5, epoch=0)
    assert sorted(np.concatenate(first).tolist()) == list(range(rows))
    assert sorted(map(len, first)) == sorted([size] * (rows // size) + [rows % size] * (rows % size > 0))
    again = epoch_batches(lengths, size, seed=5, epoch=0)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))


def test_other_rows_share_a_batch_in_the_next_epoch() -> None:
    lengths = np.arange(3, 1603)  # all lengths differ: the worst case for a shuffle of sorted windows
    batches = [{frozenset(map(int, batch)) for batch in epoch_batches(lengths, 32, 5, epoch)} for epoch in (0, 1)]
    overlap = max(len(one & other) for one in batches[0] for other in batches[1])
    assert overlap < 24
    assert not batches[0] & batches[1]
    assert not batches[0] & {frozenset(map(int, batch)) for batch in epoch_batches(lengths, 32, 6, 0)}


def test_padding_is_a_small_share() -> None:
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.lognormal(4, 0.6, 10_000).astype(int) + 3, 512)

    def padding_share(batches: list[np.ndarray]) -> float:
        padded = sum(len(rows) * lengths[rows].max() for rows in batches)
        return 1 - lengths.sum() / padded

    assert padding_share(epoch_batches(lengths, 32, 0, 0)) < 0.08
    assert padding_share(np.array_split(rng.permutation(10_000), 313)) > 0.5  # of a plain shuffle
    assert padding_share(list(evaluation_batches(lengths, 8_192))) < 0.05


def test_the_small_batch_has_another_row_in_each_epoch() -> None:
    lengths = np.arange(3, 68)  # 65 rows: one batch of each epoch has a single row
    single = [min(epoch_batches(lengths, 32, 0, epoch), key=len)[0] for epoch in range(40)]
    assert len(set(single)) > 20
    assert 15 < np.mean(single) < 50


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
