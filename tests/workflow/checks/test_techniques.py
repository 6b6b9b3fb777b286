"""Techniques that the task or a model does not support raise before anything is trained."""

from pathlib import Path
from typing import Any

import pytest

from hpo.config.load import load_config
from hpo.errors import ConfigError, ModelError
from hpo.training.execution import Execution
from hpo.workflow.checks.study import inspect_models
from hpo.workflow.context import StudyContext
from tests.small_models import save_model


def inspect(study: dict[str, Any]) -> int:
    return len(inspect_models(StudyContext.create(load_config(study), Execution())))


def test_class_weights_need_classes(study: dict[str, Any], tmp_path: Path) -> None:
    lines = ["text,label", *(f"a film number {i},{i / 7:.3f}" for i in range(40))]
    (tmp_path / "scores.csv").write_text("\n".join(lines))
    study |= {"data": str(tmp_path / "scores.csv"), "task": "text-regression"}
    study["search_space"]["class_weights"] = ["none", "balanced"]
    with pytest.raises(ConfigError, match="class_weights: balanced is for tasks with classes, and text-regression"):
        inspect(study)


def test_head_dropout_needs_one_in_the_head(study: dict[str, Any], tmp_path: Path) -> None:
    study["models"].append(str(save_model(tmp_path / "decoder", "gpt2")))
    study["search_space"]["head_dropout"] = {"low": 0.0, "high": 0.4}
    with pytest.raises(ModelError, match="decoder: head_dropout: its head has no dropout"):
        inspect(study)
    study["search_space"]["head_dropout"]["when"] = {"model": ["shallow", "deep"]}
    assert inspect(study) == 3
