"""Whole batches in micro-batches: the same gradient, whatever fits in memory."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpo.errors import OutOfMemory
from hpo.training.evaluate import evaluate
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning
from hpo.training.frozen.cache import PrefixCache
from hpo.training.models.layers import stack_items
from hpo.training.plan import TrainingPlan

Plan = Callable[..., TrainingPlan]
TOLD = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"


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
def test_micro_batches_are_the_whole_batch(name: str, plan: Plan) -> None:
    run = FineTuning(plan(name, dropout=0.0, label_smoothing=0.1))
    rows = np.arange(11)
    whole_loss, whole = gradients(run, rows)
    assert len(whole) == len([p for p in run.model.parameters() if p.requires_grad])
    for size in (1, 3, 4):
        loss, parts = gradients(run, rows, size)
        assert loss == pytest.approx(whole_loss, rel=1e-6)
        assert_same(parts, whole)


def refuse(run: FineTuning, does_not_fit: Callable[[Any, int], bool]) -> list[int]:
    """Have the model refuse batches, as the CPU's allocator does; returns the numbers of rows asked for."""
    asked: list[int] = []

    def look(module: Any, args: Any, keywords: dict[str, torch.Tensor]) -> None:
        asked.append(len(keywords["input_ids"]))
        if does_not_fit(module, asked[-1]):
            raise RuntimeError(TOLD)

    run.model.register_forward_pre_hook(look, with_kwargs=True)
    return asked


def checkpoints(model: Any) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_out_of_memory_halves_the_micro_batch_and_changes_nothing(plan: Plan) -> None:
    expected = list(FineTuning(plan(epochs=2, dropout=0.0)).reports())
    run = FineTuning(plan(epochs=2, dropout=0.0))
    refuse(run, lambda model, rows: model.training and rows > 3)
    found = list(run.reports())
    assert run.execution.micro_batch == 2
    assert not run.execution.checkpoint_activations
    assert run.plan.execution.micro_batch is None
    for one, other in zip(found, expected, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.metrics["loss"] == pytest.approx(other.metrics["loss"], rel=1e-4)


def test_it_halves_the_part_that_does_not_fit(plan: Plan) -> None:
    run = FineTuning(plan(dropout=0.0))
    rows = np.argsort(run.plan.train.lengths, kind="stable")[::10]
    _, expected = gradients(run, rows)
    lengths = run.plan.train.lengths[rows]
    asked: list[tuple[int, int]] = []

    def look(module: Any, args: Any, keywords: dict[str, torch.Tensor]) -> None:
        asked.append(tuple(keywords["input_ids"].shape))
        if asked[-1][1] == lengths.max() and asked[-1][0] > 1:
            raise RuntimeError(TOLD)

    run.model.register_forward_pre_hook(look, with_kwargs=True)
    _, found = gradients(run, rows)
    assert_same(found, expected)
    assert run.execution.micro_batch == 2  # the longest is a part of its own by then


def test_one_example_that_fits_only_without_its_activations(plan: Plan) -> None:
    expected = list(FineTuning(plan(epochs=2, dropout=0.0)).reports())
    run = FineTuning(plan(epochs=2, dropout=0.0))
    asked = refuse(run, lambda model, rows: model.training and not checkpoints(model))
    found = list(run.reports())
    assert asked[:6] == [8, 4, 2, 1, 1, 1]
    assert run.execution.micro_batch == 1
    assert run.execution.checkpoint_activations
    assert [r.train_loss for r in found] == pytest.approx([r.train_loss for r in expected], rel=1e-4)
    # What was found out is recorded, and done from the first step of a replay.
    again = FineTuning(replace(run.plan, execution=run.execution))
    assert checkpoints(again.model)
    assert [r.train_loss for r in again.reports()] == [r.train_loss for r in found]


def test_one_example_that_does_not_fit(plan: Plan) -> None:
    run = FineTuning(plan())
    asked = refuse(run, lambda model, rows: True)
    with pytest.raises(OutOfMemory, match="one example of up to 12 tokens does not fit"):
        list(run.reports())
    assert asked == [8, 4, 2, 1, 1]  # the last without keeping activations


@pytest.mark.parametrize("name", ["bert", *(pytest.param(n, marks=pytest.mark.slow) for n in ("deberta-v2", "gpt2"))])
@pytest.mark.parametrize("cached", [False, True])
def test_activations_computed_again_are_the_same(name: str, cached: bool, plan: Plan, tmp_path: Path) -> None:
    made = plan(name, 3, frozen_layers=1, dropout=0.3)
    if cached:
        named = {split: replace(getattr(made, split), key=split) for split in ("train", "validation")}
        store = PrefixCache(tmp_path / "prefixes")
        made = replace(made, prefixes=store, execution=Execution(prefix_cache="used"), **named)
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
    assert len(calls) == 3 * once  # again in the backward pass
    assert again == pytest.approx(loss, rel=1e-6)
    assert_same(found, expected)


def test_evaluation_goes_on_with_smaller_batches(plan: Plan) -> None:
    made = plan()
    run = FineTuning(made)
    assert made.validation is not None
    expected = evaluate(run.model, made.validation, made.task, made.scorer, made.execution)
    asked = refuse(run, lambda model, rows: rows > 5)
    found = evaluate(run.model, made.validation, made.task, made.scorer, made.execution)
    assert found.metrics == pytest.approx(expected.metrics, abs=1e-6)
    assert found.predictions.tolist() == expected.predictions.tolist()
    assert asked[0] == len(made.validation)
    assert len(asked) < 20
    refuse(run, lambda model, rows: True)
    with pytest.raises(OutOfMemory, match="does not fit in memory"):
        evaluate(run.model, made.validation, made.task, made.scorer, made.execution)
