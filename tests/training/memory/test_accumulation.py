"""Gradient accumulation: the same gradient in micro-batches of any size, and retries when memory does not suffice."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpo.errors import OutOfMemory
from hpo.training.fine_tune import FineTuning
from hpo.training.frozen.cache import PrefixCache
from hpo.training.memory.accumulation import running_statistics
from hpo.training.models.layers import stack_items
from hpo.training.plan import TrainingPlan
from tests.training.conftest import CACHED

Plan = Callable[..., TrainingPlan]
NO_MEMORY = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"


def gradients(run: FineTuning, rows: Any, micro_batch: int | None = None) -> tuple[float, list[torch.Tensor]]:
    if micro_batch is not None:
        run._accumulation.use_micro_batch(micro_batch)
    torch.manual_seed(5)  # dropout's
    loss = run._accumulation.gradient(run._train, rows)
    found = [p.grad.clone() for p in run.model.parameters() if p.grad is not None]
    run.model.zero_grad()
    return float(loss), found


def assert_same(one: list[torch.Tensor], other: list[torch.Tensor], tolerance: float = 1e-6) -> None:
    scale = max(1.0, *(float(gradient.abs().max()) for gradient in other))
    for a, b in zip(one, other, strict=True):
        assert float((a - b).abs().max()) <= tolerance * scale


@pytest.mark.parametrize("name", ["bert", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_micro_batches_have_the_gradient_of_the_full_batch(name: str, plan: Plan) -> None:
    run = FineTuning(plan(name, dropout=0.0, label_smoothing=0.1))
    rows = np.arange(11)
    full_loss, full = gradients(run, rows)
    assert len(full) == len([p for p in run.model.parameters() if p.requires_grad])
    for size in (1, 3, 4):
        loss, parts = gradients(run, rows, size)
        assert loss == pytest.approx(full_loss, rel=1e-6)
        assert_same(parts, full)


def raise_out_of_memory(run: FineTuning, does_not_fit: Callable[[Any, int], bool]) -> list[int]:
    """Make the model raise out-of-memory errors as the CPU's allocator does; return the sizes of its batches."""
    sizes: list[int] = []

    def record(module: Any, args: Any, keywords: dict[str, torch.Tensor]) -> None:
        sizes.append(len(keywords["input_ids"]))
        if does_not_fit(module, sizes[-1]):
            raise RuntimeError(NO_MEMORY)

    run.model.register_forward_pre_hook(record, with_kwargs=True)
    return sizes


def checkpoints_activations(model: Any) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_out_of_memory_halves_the_micro_batch_with_the_same_results(plan: Plan) -> None:
    expected = list(FineTuning(plan(epochs=2, dropout=0.0)).reports())
    run = FineTuning(plan(epochs=2, dropout=0.0))
    raise_out_of_memory(run, lambda model, rows: model.training and rows > 3)
    found = list(run.reports())
    assert run.execution.micro_batch == 2
    assert not run.execution.checkpoint_activations
    assert run.plan.execution.micro_batch is None
    for one, other in zip(found, expected, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.metrics["loss"] == pytest.approx(other.metrics["loss"], rel=1e-4)


def test_the_part_that_does_not_fit_is_halved(plan: Plan) -> None:
    run = FineTuning(plan(dropout=0.0))
    rows = np.argsort(run.plan.train.lengths, kind="stable")[::10]
    _, expected = gradients(run, rows)
    lengths = run.plan.train.lengths[rows]
    sizes: list[tuple[int, int]] = []

    def record(module: Any, args: Any, keywords: dict[str, torch.Tensor]) -> None:
        sizes.append(tuple(keywords["input_ids"].shape))
        if sizes[-1][1] == lengths.max() and sizes[-1][0] > 1:
            raise RuntimeError(NO_MEMORY)

    run.model.register_forward_pre_hook(record, with_kwargs=True)
    _, found = gradients(run, rows)
    assert_same(found, expected)
    assert run.execution.micro_batch == 2  # the longest input is a part of its own then


def test_input_that_fits_only_with_activation_checkpointing(plan: Plan) -> None:
    expected = list(FineTuning(plan(epochs=2, dropout=0.0)).reports())
    run = FineTuning(plan(epochs=2, dropout=0.0))
    sizes = raise_out_of_memory(run, lambda model, rows: model.training and not checkpoints_activations(model))
    found = list(run.reports())
    assert sizes[:6] == [8, 4, 2, 1, 1, 1]
    assert run.execution.micro_batch == 1
    assert run.execution.checkpoint_activations
    assert [r.train_loss for r in found] == pytest.approx([r.train_loss for r in expected], rel=1e-4)
    # The execution is recorded, and a replay uses it from its first step.
    again = FineTuning(replace(run.plan, execution=run.execution))
    assert checkpoints_activations(again.model)
    assert [r.train_loss for r in again.reports()] == [r.train_loss for r in found]


def test_input_that_does_not_fit_raises_out_of_memory(plan: Plan) -> None:
    run = FineTuning(plan())
    sizes = raise_out_of_memory(run, lambda model, rows: True)
    with pytest.raises(OutOfMemory, match="one input of up to 12 tokens does not fit"):
        list(run.reports())
    assert sizes == [8, 4, 2, 1, 1]  # the last with activation checkpointing


@pytest.mark.parametrize("name", ["bert", *(pytest.param(n, marks=pytest.mark.slow) for n in ("deberta-v2", "gpt2"))])
@pytest.mark.parametrize("cached", [False, True])
def test_recomputed_activations_have_the_same_gradient(name: str, cached: bool, plan: Plan, tmp_path: Path) -> None:
    made = plan(name, 3, frozen_layers=1, dropout=0.3)
    if cached:
        keyed = {split: replace(getattr(made, split), key=split) for split in ("train", "validation")}
        store = PrefixCache(tmp_path / "prefixes")
        made = replace(made, prefixes=store, execution=CACHED, **keyed)
    run = FineTuning(made)
    steps = run.steps()
    next(steps)
    assert run.execution.prefix_cache == ("used" if cached else None)
    rows = np.arange(11)
    top = stack_items(run.model, made.candidate.stack)[-1]
    inner = next(module for module in top.modules() if not list(module.children()))
    calls: list[bool] = []
    inner.register_forward_hook(lambda *_: calls.append(True))
    loss, expected = gradients(run, rows)
    once = len(calls)
    assert run._accumulation.use_checkpointing()
    again, found = gradients(run, rows)
    assert len(calls) == 3 * once  # once more in the backward pass
    assert again == pytest.approx(loss, rel=1e-6)
    assert_same(found, expected)


def test_batch_norm_uses_its_running_statistics_for_a_batch_of_one() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3)).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(torch.ones(1, 3))
    before = int(model[0].num_batches_tracked)
    with running_statistics(model, 1):
        assert torch.allclose(model(torch.ones(1, 3)), torch.ones(1, 3), atol=1e-4)
    assert model[0].training and model[0].num_batches_tracked == before
    with running_statistics(model, 2):
        model(torch.ones(2, 3))
    assert model[0].num_batches_tracked == before + 1
