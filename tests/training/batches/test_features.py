"""Features: padded batches, concatenation, selected tokens, and labels of encoder-decoders."""

from types import SimpleNamespace

import numpy as np
import torch

from hpo.training.batches.features import ConcatenatedArray, pop_labels
from tests.training.conftest import make_features


def test_batch_is_padded_and_masked_after_concatenation() -> None:
    one, other = make_features(5, seed=0, pad=1), make_features(4, seed=1, pad=1)
    both = one.concatenate(other)
    batch = both.collate(np.array([7, 0, 8]))
    for index, (source, row) in enumerate([(other, 2), (one, 0), (other, 3)]):
        values, offsets = source.columns["input_ids"]
        tokens = values[offsets[row] : offsets[row + 1]]
        assert batch["input_ids"][index, : len(tokens)].tolist() == tokens.tolist()
        assert (batch["input_ids"][index, len(tokens) :] == 1).all()
        assert batch["attention_mask"][index].sum() == len(tokens)
        assert batch["labels"][index] == source.labels[row]
    assert batch["input_ids"].dtype == torch.int64
    # A slice of a larger table: its offsets do not start at 0.
    tail = type(one)(
        {"input_ids": (one.columns["input_ids"][0], one.columns["input_ids"][1][2:])},
        one.labels[2:],
        one.lengths[2:],
        one.pad_values,
    )
    joined = tail.concatenate(other)
    assert torch.equal(joined.collate(np.array([0, 4]))["input_ids"], both.collate(np.array([2, 6]))["input_ids"])


def test_selected_tokens_are_the_first_or_last_of_each_input() -> None:
    features = make_features(5)
    values, offsets = features.columns["input_ids"]
    for tokens, expected in (("first", values[offsets[:-1]]), ("last", values[offsets[1:] - 1])):
        selected = features.select_tokens(tokens)  # type: ignore[arg-type]
        assert selected.collate(np.arange(5))["input_ids"][:, 0].tolist() == expected.tolist()
        assert selected.state_counts().tolist() == selected.lengths.tolist() == [1] * 5
    assert features.select_tokens("all") is features
    assert features.state_counts().tolist() == features.lengths.tolist()


def test_transform_applies_to_each_batch_before_prepare_batch() -> None:
    features = make_features(5).with_transform(lambda batch: {**batch, "length": batch["attention_mask"].sum(1)})
    assert features.collate(np.arange(5))["length"].tolist() == features.lengths.tolist()


def test_concatenated_array_is_indexed_as_one() -> None:
    both = np.arange(10).reshape(5, 2)
    lazy = ConcatenatedArray(both[:3], both[3:])
    assert lazy.shape == (5, 2) and len(lazy) == 5
    rows = np.array([4, 0, 3])
    assert lazy[rows].tolist() == both[rows].tolist()
    assert lazy[0:3].tolist() == both[:3].tolist() and lazy[3:5].tolist() == both[3:].tolist()
    assert np.asarray(lazy).tolist() == both.tolist()


def test_labels_become_inputs_of_a_decoder() -> None:
    labels = torch.tensor([[5, 6]])
    batch = {"input_ids": torch.tensor([[1]]), "labels": labels}
    model = SimpleNamespace(prepare_decoder_input_ids_from_labels=lambda given: given + 1)
    assert torch.equal(pop_labels(model, batch), labels)
    assert set(batch) == {"input_ids", "decoder_input_ids"} and batch["decoder_input_ids"].tolist() == [[6, 7]]
    plain = {"labels": labels}
    pop_labels(SimpleNamespace(), plain)
    assert plain == {}
