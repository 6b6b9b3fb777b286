"""Per-layer features: one vector an input and layer for each architecture."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hpo.config.study import DataConfig
from hpo.tasks.registry import get_task
from hpo.training.batches.features import IGNORE_INDEX
from hpo.training.execution import Execution
from hpo.training.models.candidate import Candidate
from hpo.training.ranking.layer_features import extract_layer_features, mean_pool
from tests.contracts.task_data import write_rows
from tests.contracts.test_tasks import make_plan
from tests.training.conftest import make_features


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "albert", "t5"])
def test_features_are_the_means_of_the_models_hidden_states(
    architecture: str, candidate: Callable[..., Candidate]
) -> None:
    made, features = candidate(architecture), make_features(30)
    indices = np.array([2, 5, 7, 11, 29])
    found = extract_layer_features(made, features, indices, Execution())
    batch = features.collate(indices)
    backbone = made.model.get_encoder() if architecture == "t5" else made.model.base_model
    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        hidden = backbone(**inputs, output_hidden_states=True).hidden_states[1:]
    mask = batch["attention_mask"][..., None].float()
    assert len(found.layers) == len(hidden) == 2
    assert (found.labels == batch["labels"].numpy()).all() and (found.inputs == np.arange(5)).all()
    last = len(hidden) - 1  # which transformers returns after the final norm, where a model has one
    for layer in range(last if architecture in ("gpt2", "t5") else last + 1):
        expected = (hidden[layer] * mask).sum(1) / mask.sum(1)
        assert np.allclose(found.layers[layer], expected.numpy(), atol=1e-5)


def test_each_labeled_token_has_a_vector(tmp_path: Path) -> None:
    data = get_task("token-classification").prepare(
        DataConfig(path=str(write_rows("token-classification", tmp_path / "rows"))), 0
    )
    plan = make_plan("token-classification", "bert", data, tmp_path)
    indices = np.arange(6)
    found = extract_layer_features(plan.candidate, plan.train, indices, Execution())
    labels = plan.train.collate(indices)["labels"].numpy()
    assert (found.labels == labels[labels != IGNORE_INDEX]).all()
    assert (found.inputs == np.repeat(indices, (labels != IGNORE_INDEX).sum(1))).all()
    assert all(len(layer) == len(found.labels) for layer in found.layers)


@pytest.mark.parametrize("architecture", ["vit", pytest.param("convnext", marks=pytest.mark.slow)])
def test_images_have_one_vector_each(architecture: str, tmp_path: Path) -> None:
    rows = write_rows("image-classification", tmp_path / "rows")
    data = get_task("image-classification").prepare(DataConfig(path=str(rows)), 0)
    plan = make_plan("image-classification", architecture, data, tmp_path)
    found = extract_layer_features(plan.candidate, plan.train, np.arange(5), Execution())
    assert len(found.layers) == plan.candidate.stack.count
    assert all(layer.shape[0] == 5 and layer.ndim == 2 for layer in found.layers)


def test_padding_of_audio_is_ignored() -> None:
    class Model:
        def _get_feature_vector_attention_mask(self, length: int, mask: torch.Tensor) -> torch.Tensor:
            return mask[:, :: mask.shape[1] // length]

    hidden = torch.arange(24.0).reshape(2, 3, 4)
    samples = torch.tensor([[1] * 9, [1] * 3 + [0] * 6])
    means = mean_pool(Model(), hidden, {"attention_mask": samples})
    assert torch.equal(means, torch.stack([hidden[0].mean(0), hidden[1, 0]]))
    assert torch.equal(mean_pool(Model(), torch.ones(2, 5, 3, 3), {}), torch.ones(2, 5))
