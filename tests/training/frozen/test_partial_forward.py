"""Splitting a model: the check rejects models that compute something else from stored hidden states."""

from collections.abc import Callable

import torch

from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning
from hpo.training.frozen.partial_forward import PREFIX_STATES, PartialForward, position_mask, texts_per_input
from hpo.training.models.layers import hidden_state
from hpo.training.plan import TrainingPlan

Plan = Callable[..., TrainingPlan]


def test_model_that_computes_something_else_when_split_is_rejected(plan: Plan) -> None:
    made = plan(frozen_layers=1)
    tuning = FineTuning(made)
    layer = tuning.model.bert.encoder.layer[1]
    compute = layer.forward
    # A layer that reads the output of another one in this forward pass, not its own input.
    seen: list[torch.Tensor] = []
    tuning.model.register_forward_pre_hook(lambda module, args: seen.clear())
    tuning.model.bert.encoder.layer[0].attention.register_forward_hook(lambda module, args, out: seen.append(out[0]))
    layer.forward = lambda hidden, *args, **keywords: compute(hidden + (seen[0] if seen else 0), *args, **keywords)
    forward = PartialForward(tuning.model, made.candidate.stack, 1, tuning._setup.frozen, Execution())
    assert forward.check(made.train).reason == "split in two, it computes something else"


def test_batch_without_stored_states_passes_the_full_model(plan: Plan) -> None:
    made = plan(frozen_layers=1)
    tuning = FineTuning(made)
    forward = PartialForward(tuning.model, made.candidate.stack, 1, tuning._setup.frozen, Execution())
    check = forward.check(made.train)
    assert check.reason == "" and check.tokens == "all"
    batch = forward._batch(made.train, made.train.lengths.argsort()[:4])
    hidden = hidden_state(forward.hidden_states(batch))
    expected = forward._logits(batch)
    forward.install(check)
    assert torch.equal(forward._logits(batch), expected)
    torch.testing.assert_close(forward._logits({**batch, PREFIX_STATES: hidden}), expected)
    changed = forward._logits({**batch, PREFIX_STATES: hidden + 1})
    assert not torch.allclose(changed, expected)
    forward.remove()
    assert not [module for module in tuning.model.modules() if "forward" in vars(module)]


def test_positions_of_several_texts_are_joined() -> None:
    mask = torch.tensor([[[1, 1, 0], [1, 0, 0]]])  # one input of two texts
    assert texts_per_input({"attention_mask": mask}) == 2
    assert position_mask({"attention_mask": mask}).tolist() == [[1, 1, 0]]
    assert texts_per_input({"attention_mask": mask[0]}) == 1
