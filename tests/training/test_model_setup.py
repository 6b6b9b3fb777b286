"""Building a run's model from its plan, and making it a plain model again."""

from collections.abc import Callable

import torch

from hpo.training.cpu.dropout import BitDropout
from hpo.training.model_setup import build_model
from hpo.training.plan import TrainingPlan
from tests.training.conftest import few_words, make_features

Plan = Callable[..., TrainingPlan]


def test_finalized_model_has_no_change_made_for_training(plan: Plan) -> None:
    made = plan(peft="lora", lora_r=2, frozen_layers=1, layer_decay=0.9, dropout=0.1)
    setup = build_model(made)
    assert setup.lora is not None and setup.depths is not None and setup.frozen
    assert any(type(module) is BitDropout for module in setup.model.modules())
    assert setup.finalize(decay=1.0) is not None
    plain = made.candidate.build(made.seed, 0.1)
    assert [type(module) for module in setup.model.modules()] == [type(module) for module in plain.modules()]
    assert setup.model.config._attn_implementation == plain.config._attn_implementation
    for key, tensor in setup.model.state_dict().items():  # untrained adapters add nothing
        torch.testing.assert_close(tensor, plain.state_dict()[key])


def test_finalize_decays_unused_embeddings(plan: Plan) -> None:
    setup = build_model(plan(word_dropout=0.1, of={"train": few_words(make_features()), "validation": None}))
    assert setup.embedding is not None and setup.mask_token == 4
    before = setup.embedding._full.clone()
    assert setup.finalize(decay=0.5) is None
    after = setup.model.get_input_embeddings().weight
    torch.testing.assert_close(after[15], before[15] * 0.5)  # no text has it
    torch.testing.assert_close(after[[0, 4, 8, 9, 10]], before[[0, 4, 8, 9, 10]])
