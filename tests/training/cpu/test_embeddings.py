"""A trimmed embedding trains to the same model as the full matrix."""

from collections.abc import Callable

import pytest
import torch

import hpo.training.model_setup as model_setup
from hpo.training.fine_tune import FineTuning
from hpo.training.plan import TrainingPlan
from tests.training.conftest import few_words, make_features

Plan = Callable[..., TrainingPlan]


@pytest.mark.parametrize(
    "name", ["bert", *(pytest.param(n, marks=pytest.mark.slow) for n in "roberta deberta-v2 gpt2 llama albert".split())]
)
def test_trained_model_is_that_of_the_full_matrix(name: str, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    pad = 1 if name == "roberta" else 0
    data = {"train": few_words(make_features(pad=pad)), "validation": few_words(make_features(24, 1, pad=pad), 9)}
    made = plan(name, epochs=3, weight_decay=0.5, dropout=0.1, of=data)
    run = FineTuning(made)
    assert run.model.get_input_embeddings().weight.shape[0] in (5, 6)  # four words, padding, and `padding_idx`
    reports = list(run.reports())
    monkeypatch.setattr(model_setup, "trim_embedding", lambda *_: None)
    full = FineTuning(made)
    for one, other in zip(reports, full.reports(), strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-6)
        assert one.metrics["loss"] == pytest.approx(other.metrics["loss"], rel=1e-6)
    expected = full.model.state_dict()
    before = made.candidate.model.state_dict()
    assert run.model.state_dict().keys() == expected.keys()
    for key, tensor in run.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-5, atol=1e-6)
    rows = run.model.get_input_embeddings().weight
    key = next(
        key for key, tensor in before.items() if tensor.shape == rows.shape and torch.equal(rows[:0], tensor[:0])
    )
    assert not torch.allclose(rows[15], before[key][15], rtol=1e-3)  # decayed, though no text has it
    batch = {"input_ids": torch.tensor([[2, 6, 15, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    torch.testing.assert_close(run.model.eval()(**batch).logits, full.model.eval()(**batch).logits)


def test_embedding_is_not_trimmed_where_it_does_not_pay_or_is_tied(plan: Plan) -> None:
    assert FineTuning(plan())._setup.embedding is None  # the data uses most words
    frozen = plan(frozen_layers=1, of={"train": few_words(make_features())})
    assert FineTuning(frozen)._setup.embedding is None
    tied = plan("bart", of={"train": few_words(make_features())})
    assert FineTuning(tied)._setup.embedding is None
