"""Augmentation of images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpo.config.study import DataConfig
from hpo.errors import ConfigError
from hpo.tasks.augmentation.image import AUGMENTATIONS, augment_images
from hpo.tasks.registry import get_task
from hpo.tasks.task_data import TaskData
from tests.contracts.task_data import write_rows

TASK = get_task("image-classification")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_rows("image-classification", tmp_path / "rows", train=20, other=8)


def prepare(path: Path, **config: Any) -> TaskData:
    return TASK.prepare(DataConfig(path=str(path), **config), 0)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_uses_torchs_generator(name: str) -> None:
    pixels = torch.randint(0, 256, (6, 3, 20, 24), dtype=torch.uint8)
    torch.manual_seed(5)
    changed = augment_images(pixels, [name])
    assert changed.shape == pixels.shape and changed.dtype == torch.uint8
    assert (changed != pixels).any()
    torch.manual_seed(5)
    assert torch.equal(changed, augment_images(pixels, [name]))
    assert not torch.equal(changed, augment_images(pixels, [name]))


def test_augmentation_applies_to_training_only_and_disables_the_cache(folder: Path, tmp_path: Path) -> None:
    from hpo.training.fine_tune import FineTuning
    from hpo.training.frozen.cache import PrefixCache
    from tests.contracts.test_tasks import make_plan

    settings = {"frozen_layers": 1, "epochs": 1, "dropout": 0.0}
    plan = make_plan("image-classification", "vit", prepare(folder), tmp_path, augmentation="crop+flip", **settings)
    run = FineTuning(type(plan)(**{**vars(plan), "prefixes": PrefixCache(tmp_path / "prefixes")}))
    list(run.reports())
    assert run.execution.prefix_cache == "not used: augmentation changes the examples in every epoch"
    assert not torch.equal(*(run._train.collate(np.arange(3))["pixel_values"] for _ in range(2)))
    assert torch.equal(*(plan.validation.collate(np.arange(3))["pixel_values"] for _ in range(2)))  # type: ignore[union-attr]


def test_unknown_augmentation_raises(folder: Path, tmp_path: Path) -> None:
    from hpo.workflow.checks.study import check
    from tests.small_models import save_model

    save_model(tmp_path / "tiny", "vit")
    study = {"name": "n", "task": "image-classification", "data": str(folder), "models": [str(tmp_path / "tiny")]}
    space = {"epochs": 1, "augmentation": ["none", "crop+flop"]}
    with pytest.raises(ConfigError, match=r"augmentation: 'flop' is not known\. Did you mean 'flip'\?"):
        check({**study, "search_space": space})
