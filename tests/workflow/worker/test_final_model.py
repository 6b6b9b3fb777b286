"""The final model: a confirmed one, and one with a merged adapter."""

from typing import Any

import pytest

import hpo
from hpo.core.paths import named_folder


def test_refit_none_keeps_the_confirmed_model(study: dict[str, Any]) -> None:
    result = hpo.run({**study, "refit": "none"})
    assert result.metrics["accuracy"] > 0.9
    assert result.model_dir.is_dir()
    assert not (named_folder("reviews") / "confirmed").exists()


@pytest.mark.parametrize("refit", ["none", pytest.param("train+validation", marks=pytest.mark.slow)])
def test_adapter_is_merged_and_kept_if_requested(study: dict[str, Any], refit: str) -> None:
    from safetensors import safe_open

    study["search_space"] |= {"peft": ["lora", "none"], "lora_r": {"choices": [2, 4], "when": {"peft": "lora"}}}
    study |= {"models": study["models"][1:], "first_trials": [{"peft": "lora", "learning_rate": 2e-2}]}
    study |= {"budget": {"max_trials": 1}, "confirm": {"top": 1, "seeds": 1}, "refit": refit, "keep_adapter": True}
    result = hpo.run(study)
    assert result.params["peft"] == "lora"
    with safe_open(result.model_dir / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "lora" in name]  # noqa: SIM118
    with safe_open(result.model_dir / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert any(".lora_A." in name for name in file.keys())  # noqa: SIM118
    assert result.predict(["the film was great"])[0]["label"] in ("positive", "negative")
    assert "adapter/" in (result.model_dir / "README.md").read_text()
