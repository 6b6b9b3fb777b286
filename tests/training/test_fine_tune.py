"""The loop: rungs, accumulation, memory that does not suffice, stopping and going on, and what ends a run."""

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
from hpo.training.evaluate import evaluate
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning, Stopped
from hpo.training.plan import TrainingPlan
from tests.training.conftest import make_features

Plan = Callable[..., TrainingPlan]


def curve(reports: list[Report]) -> list[tuple[Any, ...]]:
    """All of a run's numbers that are not times."""
    return [(r.step, r.epoch, r.value, r.train_loss, sorted(r.metrics.items())) for r in reports]


def test_rungs_and_the_last_report_at_the_end(plan: Plan) -> None:
    made = plan(epochs=2, of={"rungs_per_epoch": 3})  # 6 steps an epoch
    assert made.rung_steps() == [2, 4, 6, 8, 10, 12]
    run = FineTuning(made)
    reports = list(run.reports())
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6]
    assert reports[-1].epoch == 2
    assert run.progress.step == 12
    assert reports[-1].seconds["train"] > 0
    assert all(0 <= report.value <= 1 and report.metrics["loss"] > 0 for report in reports)


def test_it_learns(plan: Plan) -> None:
    reports = list(FineTuning(plan(epochs=15, learning_rate=1e-2)).reports())
    assert reports[-1].train_loss < 0.5 * reports[0].train_loss
    assert reports[-1].value > 0.8


def test_more_rungs_than_steps(plan: Plan) -> None:
    reports = list(FineTuning(plan(epochs=2, batch_size=48, of={"rungs_per_epoch": 3})).reports())
    assert [(report.step, report.epoch) for report in reports] == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]


def test_early_stopping_and_epochs_to_train(plan: Plan) -> None:
    constant = plan(epochs=9, learning_rate=1e-12, early_stopping_patience=2)
    assert [report.step for report in FineTuning(constant).reports()] == [1, 2, 3]
    whole = list(FineTuning(plan(epochs=4)).reports())
    cut = list(FineTuning(plan(epochs=4, of={"epochs_to_train": 2.0})).reports())
    assert curve(cut) == curve(whole)[:2]  # on the same schedule
    alone = list(FineTuning(plan(epochs=4, of={"epochs_to_train": 2.0, "validation": None})).reports())
    assert [report.train_loss for report in alone] == [report.train_loss for report in cut]
    assert np.isnan(alone[-1].value)


def test_another_runtime_error_is_a_bug_and_is_raised(plan: Plan) -> None:
    run = FineTuning(plan())
    run.model.classifier = torch.nn.Linear(3, 2)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        list(run.reports())


def test_diverged(plan: Plan) -> None:
    run = FineTuning(plan())
    with torch.no_grad():
        run.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(Diverged, match="loss became nan at step 1"):
        list(run.reports())


def test_losses_may_be_read_some_steps_later(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, which then need not wait for the host after each step."""
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
def test_stopped_and_gone_on_is_the_same_run(stop_at: int, plan: Plan) -> None:
    whole = list(FineTuning(plan(epochs=3, dropout=0.3, lr_scheduler="cosine")).reports())
    made = plan(epochs=3, dropout=0.3, lr_scheduler="cosine")
    run = FineTuning(made)
    run.model.register_forward_hook(
        lambda *_: made.stop.set() if run.progress.step == stop_at - 1 and run.model.training else None
    )
    before: list[Report] = []
    with pytest.raises(Stopped):
        before.extend(run.reports())
    before = whole[: run.progress.rung]
    torch.manual_seed(99)  # what another trial in between would leave behind
    later = FineTuning(replace(made, stop=type(made.stop)()))
    assert later.progress.step == stop_at
    assert curve(before + list(later.reports())) == curve(whole)


@pytest.mark.parametrize("rung", [1, 3])
def test_a_stop_in_the_middle_of_an_evaluation_is_heard_and_the_rung_reported_later(plan: Plan, rung: int) -> None:
    """Some evaluations take minutes, and who is told to leave has ten seconds."""
    in_parts = {"validation": make_features(120, seed=1, longest=30)}  # of 1,024 tokens at most
    whole = list(FineTuning(plan(epochs=3, dropout=0.3, of=in_parts)).reports())
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
    assert run.progress.rung == rung - 1 and batches == [6 * rung]  # of several batches, the first
    torch.manual_seed(99)
    later = FineTuning(replace(made, stop=type(made.stop)()))
    assert later.progress.step == 6 * rung
    assert curve(whole[: rung - 1] + list(later.reports())) == curve(whole)


def test_resume_trains_what_is_not_frozen(plan: Plan) -> None:
    whole = list(FineTuning(plan(epochs=2, frozen_layers=1)).reports())
    made = plan(epochs=2, frozen_layers=1)
    run = FineTuning(made)
    steps = run.steps()
    for _ in range(4):
        next(steps)
    size = run.save().joinpath("state.safetensors").stat().st_size
    trainable = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    assert size < 4 * 3 * trainable + 40_000  # weights and two moments, nothing frozen
    later = FineTuning(made)
    assert curve(list(later.reports())) == curve(whole)


def test_evaluation_in_any_batches_gives_the_same_predictions_in_order(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan()
    model = made.candidate.build(0).eval()
    features = make_features(20, longest=30)
    found = evaluate(model, features, made.task, made.scorer, Execution())
    logits_of_rows = []
    for row in range(20):
        batch = features.collate(np.array([row]))
        with torch.inference_mode():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        logits_of_rows.append(logits)
    expected = torch.nn.functional.cross_entropy(torch.cat(logits_of_rows), torch.from_numpy(features.labels))
    assert found.metrics["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert np.array_equal(found.predictions, torch.cat(logits_of_rows).argmax(-1).numpy())
    assert np.array_equal(found.references, features.labels)
    assert found.metrics["accuracy"] == (found.predictions == features.labels).mean()


def test_memory_is_flat_over_trials(plan: Plan) -> None:
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
