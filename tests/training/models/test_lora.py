"""LoRA on any architecture: which weights train, merging, resuming, and the saved adapter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hpo.training.fine_tune import FineTuning
from hpo.training.frozen.cache import PrefixCache
from hpo.training.memory.micro_batch import MicroBatchCache
from hpo.training.models.lora import AdapterWeights
from hpo.training.plan import TrainingPlan
from tests.small_models import ARCHITECTURES
from tests.training.conftest import CACHED, curve, make_splits

Plan = Callable[..., TrainingPlan]
QUICK = ("bert", "gpt2")
MATRIX = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
HEADS = ("classifier", "score", "classification_head", "pre_classifier", "pooler", "head")


def logits(model: nn.Module, plan: TrainingPlan) -> torch.Tensor:
    batch = plan.train.collate(np.arange(6))
    del batch["labels"]
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(**batch).logits
    return found


def run_all_steps(run: FineTuning) -> None:
    """Train a run without finalizing its model."""
    for _ in run.steps():
        pass


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft reads it
@pytest.mark.parametrize("name", MATRIX)
def test_only_adapters_and_head_train_and_merging_keeps_the_logits(name: str, plan: Plan, tmp_path: Path) -> None:
    made = plan(
        name, 1 if name == "albert" else 3, epochs=2, peft="lora", lora_r=2, learning_rate=1e-2, of=make_splits(name)
    )
    run = FineTuning(made)
    start = {key: tensor.clone() for key, tensor in run.model.state_dict().items()}
    run_all_steps(run)
    changed = {key for key, tensor in run.model.state_dict().items() if not torch.equal(tensor, start[key])}
    adapters = {key for key in changed if ".lora_" in key}
    assert adapters and all(key.split(".")[0] in HEADS for key in changed - adapters)
    assert any(".lora_B." in key for key in adapters) and changed - adapters
    assert not run.model.get_input_embeddings().weight.requires_grad
    unmerged = logits(run.model, made)
    run._finalize_model()
    torch.testing.assert_close(logits(run.model, made), unmerged, rtol=0, atol=1e-5)
    assert run.model.state_dict().keys() == made.candidate.model.state_dict().keys()
    # The saved adapter, loaded on the base model as a user would.
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    assert run.adapter is not None
    run.adapter.save(tmp_path / "adapter", run.model)
    AdapterWeights.load(tmp_path / "adapter").save(tmp_path / "again", run.model)
    base = AutoModelForSequenceClassification.from_pretrained(made.candidate.ref.name, num_labels=2)
    base.config.pad_token_id = made.candidate.model.config.pad_token_id
    adapted_model = PeftModel.from_pretrained(base, tmp_path / "again")
    torch.testing.assert_close(logits(adapted_model, made), unmerged, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MATRIX)
def test_cached_and_resumed_runs_have_the_same_results(name: str, plan: Plan, tmp_path: Path) -> None:
    layers = 1 if name == "albert" else 3
    settings = {"epochs": 2, "peft": "lora", "lora_r": 2, "frozen_layers": layers - 1, "dropout": 0.1}
    uninterrupted = FineTuning(plan(name, layers, of=make_splits(name), **settings))
    reports = list(uninterrupted.reports())
    cached = plan(
        name, layers, of={**make_splits(name), "prefixes": PrefixCache(tmp_path), "execution": CACHED}, **settings
    )
    for one, other in zip(FineTuning(cached).reports(), reports, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-5)
    made = plan(name, layers, of=make_splits(name), **settings)
    run = FineTuning(made)
    steps = run.steps()
    for _ in range(4):
        next(steps)
    saved = run.save()
    trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    assert (saved / "state.safetensors").stat().st_size < 12 * trained + 60_000
    torch.manual_seed(99)
    assert curve(list(FineTuning(made).reports())) == curve(reports)


def adapted_modules(plan: TrainingPlan) -> set[str]:
    run = FineTuning(plan)
    return {key.partition(".lora_A")[0] for key, p in run.model.named_parameters() if ".lora_A" in key}


def test_adapted_matrices_follow_from_the_structure(plan: Plan) -> None:
    attention = adapted_modules(plan(peft="lora", lora_targets="attention"))
    each = {"self.query", "self.key", "self.value", "output.dense"}
    assert attention == {f"bert.encoder.layer.{layer}.attention.{part}" for layer in (0, 1) for part in each}
    everything = adapted_modules(plan(peft="lora"))
    assert attention < everything and "bert.pooler.dense" in everything
    above = adapted_modules(plan(peft="lora", frozen_layers=1))
    assert above == {name for name in everything if not name.startswith("bert.encoder.layer.0.")}
    assert (
        adapted_modules(plan(peft="lora", lora_targets="attention", frozen_layers=2)) == set()
    )  # only the head is trained
    assert FineTuning(
        plan(peft="lora", lora_targets="attention", frozen_layers=2)
    ).model.classifier.weight.requires_grad
    assert any(
        "decoder" in name for name in adapted_modules(plan("t5", peft="lora", frozen_layers=2, of=make_splits("t5")))
    )


def test_run_without_adapted_matrices_trains_the_head(plan: Plan) -> None:
    keywords = {"frozen_layers": 2, "lora_targets": "attention", "learning_rate": 1e-2}
    run = FineTuning(plan("distilbert", peft="lora", **keywords))
    assert curve(list(run.reports())) == curve(list(FineTuning(plan("distilbert", **keywords)).reports()))
    assert run.adapter is None


def test_parameters_reach_peft(plan: Plan) -> None:
    def scale(**params: Any) -> float:
        run = FineTuning(plan(peft="lora", **params))
        layer = run.model.get_submodule("bert.encoder.layer.0.attention.self.query")
        return float(layer.scaling["default"])

    assert scale(lora_r=4) == 2  # lora_alpha is twice the rank where it is not given
    assert scale(lora_r=4, lora_alpha=4) == 1
    assert scale(lora_r=4, lora_alpha=4, use_rslora=True) == 2
    run = FineTuning(plan(peft="lora", use_dora=True, lora_dropout=0.2, epochs=2))
    assert any("lora_magnitude_vector" in key for key, p in run.model.named_parameters() if p.requires_grad)
    run_all_steps(run)
    unmerged = logits(run.model, run.plan)
    run._finalize_model()
    torch.testing.assert_close(logits(run.model, run.plan), unmerged, rtol=0, atol=1e-5)


def test_micro_batch_is_measured_for_each_kind_of_adapter(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.training.memory.micro_batch.activation_bound", lambda *_: float("inf"))
    store = MicroBatchCache(tmp_path)
    for params in ({}, {"peft": "lora"}, {"peft": "lora", "lora_r": 4}, {"peft": "lora"}):
        list(FineTuning(plan(epochs=1, of={"micro_batches": store}, **params)).reports())
    assert len(list(tmp_path.glob("*.json"))) == 3
