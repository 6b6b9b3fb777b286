"""The training loop: rungs, early stopping, divergence, and runs that are stopped and resumed."""

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hpo.config.trial_params import Report
from hpo.errors import Diverged
from hpo.tasks.text.text_classification import TextClassification
from hpo.training.evaluate import evaluate
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning, Stopped
from hpo.training.models.layers import train_mode
from hpo.training.plan import TrainingPlan
from tests.training.conftest import curve, make_features

Plan = Callable[..., TrainingPlan]


def test_reports_are_yielded_at_each_rung(plan: Plan) -> None:
    made = plan(epochs=2, of={"rungs_per_epoch": 3})  # 6 steps an epoch
    assert made.rung_steps() == [2, 4, 6, 8, 10, 12]
    run = FineTuning(made)
    reports = list(run.reports())
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6]
    assert reports[-1].epoch == 2
    assert run.progress.step == 12
    assert reports[-1].seconds["train"] > 0
    assert all(0 <= report.value <= 1 and report.metrics["loss"] > 0 for report in reports)


def test_training_reduces_the_loss(plan: Plan) -> None:
    reports = list(FineTuning(plan(epochs=15, learning_rate=1e-2)).reports())
    assert reports[-1].train_loss < 0.5 * reports[0].train_loss
    assert reports[-1].value > 0.8


def test_one_step_completes_several_rungs(plan: Plan) -> None:
    reports = list(FineTuning(plan(epochs=2, batch_size=48, of={"rungs_per_epoch": 3})).reports())
    assert [(report.step, report.epoch) for report in reports] == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]


def test_early_stopping_and_epochs_to_train_shorten_the_run(plan: Plan) -> None:
    constant = plan(epochs=9, learning_rate=1e-12, early_stopping_patience=2)
    assert [report.step for report in FineTuning(constant).reports()] == [1, 2, 3]
    full = list(FineTuning(plan(epochs=4)).reports())
    cut = list(FineTuning(plan(epochs=4, of={"epochs_to_train": 2.0})).reports())
    assert curve(cut) == curve(full)[:2]  # the same schedule
    unvalidated = list(FineTuning(plan(epochs=4, of={"epochs_to_train": 2.0, "validation": None})).reports())
    assert [report.train_loss for report in unvalidated] == [report.train_loss for report in cut]
    assert np.isnan(unvalidated[-1].value)


@pytest.mark.parametrize("weight_decay", [0.0, 5.0])
def test_run_with_a_patience_ends_with_the_model_of_its_best_rung(plan: Plan, weight_decay: float) -> None:
    """The rungs that patience waits for are worse: neither their value nor their weights are the run's."""
    noise = make_features(16, seed=9)  # no relation to the training data: more training makes the loss worse
    scorer = TextClassification().scorer("loss")
    params = {"epochs": 12, "learning_rate": 1e-2, "weight_decay": weight_decay}
    made = plan(**params, early_stopping_patience=3, of={"validation": noise, "scorer": scorer})
    run = FineTuning(made)
    values = [report.value for report in run.reports()]
    best = values.index(min(values)) + 1
    assert 1 < best == len(values) - 3 and run.outcome.step == best
    found = evaluate(run.model, noise, made.task, scorer, run.execution).metrics["loss"]
    assert found == pytest.approx(values[best - 1], rel=1e-6) != values[-1]
    cut = FineTuning(plan(**params, of={"validation": noise, "scorer": scorer, "epochs_to_train": float(best)}))
    list(cut.reports())
    for name, tensor in cut.model.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], tensor, msg=name)
    stopped = FineTuning(plan(**params, early_stopping_patience=3, of={"validation": noise, "scorer": scorer}))
    reports = stopped.reports()
    for _ in range(best + 1):
        next(reports)
    train_mode(stopped.model, stopped._setup.frozen)
    stopped.save()
    resumed = FineTuning(plan(**params, early_stopping_patience=3, of={"validation": noise, "scorer": scorer}))
    assert [report.value for report in resumed.reports()] == values[best + 1 :] and resumed.outcome.step == best
    for name, tensor in cut.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, msg=name)


def test_runtime_error_that_is_not_out_of_memory_is_raised(plan: Plan) -> None:
    run = FineTuning(plan())
    run.model.classifier = torch.nn.Linear(3, 2)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        list(run.reports())


def test_loss_that_is_not_finite_raises_diverged(plan: Plan) -> None:
    run = FineTuning(plan())
    with torch.no_grad():
        run.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(Diverged, match="loss became nan at step 1"):
        list(run.reports())


def test_results_do_not_depend_on_when_losses_are_read(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU losses are read after several steps, so that it does not wait for the host after each."""
    each = list(FineTuning(plan(epochs=2)).reports())
    monkeypatch.setattr(Execution, "steps_ahead", 16)
    late = list(FineTuning(plan(epochs=2)).reports())
    assert curve(late) == curve(each)
    assert [report.train_loss for report in late] == pytest.approx([report.train_loss for report in each])
    run = FineTuning(plan())
    with torch.no_grad():
        run.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(Diverged, match="loss became nan at step 1"):
        list(run.reports())
    assert run.progress.step > 1


@pytest.mark.parametrize("stop_at", [1, 6, 9])  # the first step, a rung, the middle of an epoch
def test_stopped_and_resumed_run_has_the_same_results(stop_at: int, plan: Plan) -> None:
    uninterrupted = list(FineTuning(plan(epochs=3, dropout=0.3, lr_scheduler="cosine")).reports())
    made = plan(epochs=3, dropout=0.3, lr_scheduler="cosine")
    run = FineTuning(made)
    run.model.register_forward_hook(
        lambda *_: made.stop.set() if run.progress.step == stop_at - 1 and run.model.training else None
    )
    before: list[Report] = []
    with pytest.raises(Stopped):
        before.extend(run.reports())
    before = uninterrupted[: run.progress.rung]
    torch.manual_seed(99)  # as if another trial had run in between
    later = FineTuning(replace(made, stop=type(made.stop)()))
    assert later.progress.step == stop_at
    assert curve(before + list(later.reports())) == curve(uninterrupted)


@pytest.mark.parametrize("rung", [1, 3])
def test_run_stopped_during_an_evaluation_reports_the_rung_when_resumed(plan: Plan, rung: int) -> None:
    """An evaluation may take minutes, and a worker that shuts down has ten seconds."""
    in_parts = {"validation": make_features(120, seed=1, longest=30)}  # of 1,024 tokens at most
    uninterrupted = list(FineTuning(plan(epochs=3, dropout=0.3, of=in_parts)).reports())
    made = plan(epochs=3, dropout=0.3, of=in_parts)
    run = FineTuning(made)
    batches: list[int] = []

    def stop(*_: Any) -> None:
        if not run.model.training and run.progress.rung == rung - 1:
            batches.append(run.progress.step)
            made.stop.set()

    run.model.register_forward_hook(stop)
    with pytest.raises(Stopped):
        list(run.reports())
    assert run.progress.rung == rung - 1 and batches == [6 * rung]  # stopped after the first of several batches
    torch.manual_seed(99)
    later = FineTuning(replace(made, stop=type(made.stop)()))
    assert later.progress.step == 6 * rung
    assert curve(uninterrupted[: rung - 1] + list(later.reports())) == curve(uninterrupted)


def test_checkpoint_holds_trainable_weights_only(plan: Plan) -> None:
    uninterrupted = list(FineTuning(plan(epochs=2, frozen_layers=1)).reports())
    made = plan(epochs=2, frozen_layers=1)
    run = FineTuning(made)
    steps = run.steps()
    for _ in range(4):
        next(steps)
    size = run.save().joinpath("state.safetensors").stat().st_size
    trainable = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    assert size < 4 * 3 * trainable + 40_000  # weights and two moments
    later = FineTuning(made)
    assert curve(list(later.reports())) == curve(uninterrupted)


def test_memory_does_not_grow_over_trials(plan: Plan) -> None:
    made = plan(epochs=1, batch_size=24)

    def memory_after(trials: int) -> tuple[int, int]:
        for _ in range(trials):
            list(FineTuning(made).reports())
        gc.collect()
        return tracemalloc.get_traced_memory()[0], sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    tracemalloc.start()
    early, early_tensors = memory_after(5)
    late, late_tensors = memory_after(25)
    tracemalloc.stop()
    assert late_tensors == early_tensors
    assert (late - early) / 25 < 4_000  # bytes a trial
