"""Prediction with a final model from its folder alone."""

from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

import hpo
from tests.small_models import save_remote_model


@pytest.mark.parametrize("refit", ["none", pytest.param("train+validation", marks=pytest.mark.slow)])
def test_final_model_with_code_of_its_own_is_loaded_with_it(
    refit: str, one_trial: dict[str, Any], tmp_path: Path
) -> None:
    model = {"name": str(save_remote_model(tmp_path / "remote")), "trust_remote_code": True}
    found = hpo.run({**one_trial, "models": [model], "first_trials": [], "refit": refit}, quiet=True)
    folder = Path(str(found.model_dir))
    (prediction,) = found.predict(["a good film"])
    (plain,) = pipeline("text-classification", model=str(folder), trust_remote_code=True)("a good film")
    assert prediction["label"] == plain["label"] and prediction["score"] == pytest.approx(plain["score"], abs=1e-4)
    card = (folder / "README.md").read_text()
    assert 'model="path/to/this/folder", trust_remote_code=True' in card and "Python code of its own" in card
