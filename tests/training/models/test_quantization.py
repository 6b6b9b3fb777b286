"""QLoRA: matrices in 4 bits, merging, resuming, and errors where it is not available.

The tests run on a CPU, where `bitsandbytes` is slower; the complete path on a GPU has not been tested.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hpo
from hpo.config.load import load_config
from hpo.errors import ConfigError
from hpo.training.fine_tune import FineTuning, Stopped
from hpo.training.frozen.cache import PrefixCache
from hpo.training.models.quantization import check_quantization
from hpo.training.plan import TrainingPlan
from tests.conftest import NO_EXTRA
from tests.small_models import save_bert, write_reviews
from tests.training.conftest import CACHED, curve, make_splits
from tests.training.models.test_lora import logits, run_all_steps

Plan = Callable[..., TrainingPlan]
SETTINGS = {"epochs": 2, "peft": "lora", "lora_r": 2, "quantization": "4bit", "learning_rate": 1e-2, "dropout": 0.0}
needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason=f"{NO_EXTRA}: bitsandbytes")


def quantized_layers(model: nn.Module) -> list[str]:
    """Return the names of the layers in 4 bits."""
    return [name for name, part in model.named_modules() if type(part).__name__ == "Linear4bit"]


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft reads it
@pytest.mark.parametrize(
    ("name", "changes"), [("bert", {}), ("llama", {"frozen_layers": 1}), ("bert", {"use_dora": True})]
)
def test_body_is_quantized_and_merging_keeps_the_logits(name: str, changes: dict[str, Any], plan: Plan) -> None:
    made = plan(name, 2, of=make_splits(name), **{**SETTINGS, **changes})
    run = FineTuning(made)
    assert any(".layer" in layer for layer in quantized_layers(run.model))
    assert not any(p.requires_grad for key, p in run.model.named_parameters() if p.dtype == torch.uint8)
    start = {key: tensor.clone() for key, tensor in run.model.state_dict().items() if torch.is_tensor(tensor)}
    run_all_steps(run)
    now = run.model.state_dict()
    changed = [key for key, tensor in start.items() if not torch.equal(tensor, now[key])]
    assert any(".lora_" in key for key in changed)
    assert all(".lora_" in key or key.split(".")[0] in ("classifier", "score", "bert") for key in changed)
    assert not any("base_layer" in key for key in changed)
    unmerged = logits(run.model, made)
    run._finalize_model()
    torch.testing.assert_close(logits(run.model, made), unmerged, rtol=0, atol=1e-4)
    assert quantized_layers(run.model) == [] and run.adapter is not None
    plain = made.candidate.model.state_dict()
    assert {key: p.shape for key, p in run.model.state_dict().items()} == {key: p.shape for key, p in plain.items()}
    # Rounded to 4 bits: close to the original weights, not equal.
    weight = next(key for key in plain if key.endswith(("query.weight", "q_proj.weight")))
    difference = float((run.model.state_dict()[weight] - plain[weight]).abs().mean() / plain[weight].abs().mean())
    assert 0.01 < difference < 1


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_cached_and_resumed_runs_have_the_same_results(plan: Plan, tmp_path: Path) -> None:
    made = plan("bert", 2, of=make_splits("bert"), **SETTINGS, frozen_layers=1)
    reports = list(FineTuning(made).reports())
    cached = replace(made, prefixes=PrefixCache(tmp_path / "prefixes"), execution=CACHED, folder=tmp_path / "cached")
    for one, other in zip(FineTuning(cached).reports(), reports, strict=True):
        assert one.metrics["loss"] == pytest.approx(other.metrics["loss"], rel=1e-3)
    # Without quantization it is another model, with cache entries of its own.
    plainly = replace(cached, params=made.params.model_copy(update={"quantization": "none"}), folder=tmp_path / "plain")
    list(FineTuning(plainly).reports())
    assert len(list((tmp_path / "prefixes").glob("*/manifest.json"))) == 4
    stopping = replace(made, folder=tmp_path / "stopped")
    stopped = FineTuning(stopping).reports()
    next(stopped)
    stopping.stop.set()
    with pytest.raises(Stopped):
        next(stopped)
    later = FineTuning(replace(stopping, stop=type(made.stop)()))
    assert later.progress.rung == 1
    assert curve(list(later.reports())) == curve(reports)[1:]


def test_missing_gpu_or_package_raises_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="quantization: 4bit is for CUDA devices, and this study's device is cpu"):
        check_quantization("cpu")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"pip install 'hpo-finetune\[qlora\]'"):
        check_quantization("cuda:0")


def test_study_without_gpu_raises_before_training(tmp_path: Path) -> None:
    write_reviews(tmp_path / "reviews")
    save_bert(tmp_path / "tiny")
    space = {"peft": "lora", "quantization": ["none", "4bit"]}
    study = {"name": "n", "data": str(tmp_path / "reviews"), "models": [str(tmp_path / "tiny")], "search_space": space}
    with pytest.raises(ConfigError, match="quantization: 4bit is for CUDA devices"):
        hpo.run({**study, "backend": "inline", "devices": "cpu"})


def test_quantization_without_lora_raises_config_error() -> None:
    study = {"name": "n", "data": "d.csv", "models": ["a"]}
    with pytest.raises(ConfigError, match="quantization: used only with peft: lora"):
        load_config({**study, "search_space": {"learning_rate": 1e-3, "quantization": "4bit"}})
    space = {"peft": ["none", "lora"], "quantization": {"choices": ["none", "4bit"], "when": {"peft": "lora"}}}
    load_config({**study, "search_space": space})
