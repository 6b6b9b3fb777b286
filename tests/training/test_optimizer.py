"""Learning rates by depth, weight decay, optimizer state in checkpoints, and schedules."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch

import hpo.training.model_setup as model_setup
from hpo.config.trial_params import Scheduler, TrialParams
from hpo.training.fine_tune import FineTuning
from hpo.training.optimizer import build_scheduler
from hpo.training.plan import TrainingPlan
from tests.training.conftest import few_words, make_splits, train_steps

Plan = Callable[..., TrainingPlan]


def rates(run: FineTuning) -> dict[str, float]:
    """Return each trainable parameter's current learning rate."""
    by_id = {id(p): group["lr"] for group in run._optimizer.param_groups for p in group["params"]}
    return {name: by_id[id(p)] for name, p in run.model.named_parameters() if p.requires_grad}


def test_layer_decay_scales_the_schedule_by_depth(plan: Plan) -> None:
    settings: dict[str, Any] = {"learning_rate": 1.0, "layer_decay": 0.5, "lr_scheduler": "linear", "warmup_ratio": 0}
    run = FineTuning(plan(layers=3, epochs=2, **settings))
    expected = {
        "classifier.weight": 1,
        "bert.pooler.dense.bias": 1,
        "bert.encoder.layer.2.output.dense.weight": 1 / 2,
        "bert.encoder.layer.1.attention.self.query.bias": 1 / 4,
        "bert.encoder.layer.0.output.LayerNorm.weight": 1 / 8,
        "bert.embeddings.word_embeddings.weight": 1 / 16,
        "bert.embeddings.LayerNorm.bias": 1 / 16,
    }
    found = rates(run)
    assert {name: found[name] for name in expected} == expected
    for group in run._optimizer.param_groups:
        group["lr"] = group["initial_lr"] = group["initial_lr"] * 1e-3  # so that weights stay finite
    run._scheduler.base_lrs = [rate * 1e-3 for rate in run._scheduler.base_lrs]
    found = rates(train_steps(run, 3))
    assert {name: found[name] for name in expected} == pytest.approx({n: r * 0.75e-3 for n, r in expected.items()})


def test_depth_depends_on_where_a_weight_is_used_not_registered(plan: Plan) -> None:
    settings: dict[str, Any] = {"learning_rate": 1, "layer_decay": 0.5, "warmup_ratio": 0}
    deberta = rates(FineTuning(plan("deberta-v2", **settings)))
    assert deberta["deberta.encoder.rel_embeddings.weight"] == deberta["deberta.embeddings.LayerNorm.weight"] == 1 / 8
    t5 = rates(FineTuning(plan("t5", of=make_splits("t5"), **settings)))
    assert t5["transformer.shared.weight"] == 1 / 8  # tied to the decoder's, at the depth of the encoder's
    assert t5["transformer.decoder.block.0.layer.0.SelfAttention.q.weight"] == 1
    above = rates(FineTuning(plan(frozen_layers=1, **settings)))
    assert set(above.values()) == {1, 1 / 2}
    adapted = rates(FineTuning(plan(peft="lora", **settings)))
    assert set(adapted.values()) == {1, 1 / 2, 1 / 4}


def test_unused_embeddings_decay_at_the_rate_of_their_depth(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    of = {"train": few_words(make_splits()["train"]), "validation": few_words(make_splits()["validation"])}
    made = plan(epochs=3, weight_decay=0.5, layer_decay=0.5, of=of)
    run = FineTuning(made)
    assert run._setup.embedding is not None
    list(run.reports())
    monkeypatch.setattr(model_setup, "trim_embedding", lambda *_: None)
    full = FineTuning(made)
    list(full.reports())
    for key, tensor in run.model.state_dict().items():
        torch.testing.assert_close(tensor, full.model.state_dict()[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [{"optimizer": "adafactor"}, {"layer_decay": 0.7}], ids=lambda s: next(iter(s)))
def test_resumed_run_has_the_same_results(settings: dict[str, Any], plan: Plan) -> None:
    expected = [report.train_loss for report in FineTuning(plan(epochs=2, **settings)).reports()]
    made = plan(epochs=2, **settings)
    train_steps(FineTuning(made), 4).save()
    later = FineTuning(made)
    assert later.progress.step == 4
    assert [report.train_loss for report in later.reports()] == expected


def test_adafactor_learns_at_adamw_rates_with_a_fraction_of_its_state(plan: Plan) -> None:
    made = plan(epochs=15, learning_rate=1e-2, optimizer="adafactor")
    run = FineTuning(made)
    reports = list(run.reports())
    assert reports[-1].train_loss < 0.5 * reports[0].train_loss
    weight = run.model.bert.encoder.layer[0].output.dense.weight
    assert sum(torch.as_tensor(v).numel() for v in run._optimizer.state[weight].values()) == sum(weight.shape) + 2
    assert FineTuning(plan(optimizer="adafactor", of={"train": few_words(made.train)}))._setup.embedding is None


@pytest.mark.parametrize("name", get_args(Scheduler))
def test_schedule_warms_up_and_decays(name: Scheduler) -> None:
    """Of 100 steps the first 20 warm up; warmup-stable-decay decays in the last 20."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    params = TrialParams(model="m", lr_scheduler=name, warmup_ratio=0.2)
    scheduler = build_scheduler(optimizer, params, total_steps=100)
    rates = []
    for _ in range(100):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    if name == "constant":
        assert rates == [1.0] * 100
        return
    assert rates[0] == 0 and rates[20] == 1 and all(one < other for one, other in pairwise(rates[:21]))
    decay_start = {"linear": 20, "cosine": 20, "constant_with_warmup": 100, "warmup_stable_decay": 80}[name]
    assert rates[20 : decay_start + 1] == [1.0] * len(rates[20 : decay_start + 1])
    assert all(one > other for one, other in pairwise(rates[decay_start:]))
    assert rates[-1] < 0.1 or decay_start == 100
