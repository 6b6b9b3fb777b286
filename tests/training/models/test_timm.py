"""timm's models through transformers' wrapper: layers, freezing, prefix cache, LoRA, resuming, saving and loading.

timm imports torchvision and is an extra: all tests but the first need `hpo-finetune[timm]`.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpo.config.model_ref import ModelRef
from hpo.config.study import DataConfig
from hpo.config.trial_params import TrialParams
from hpo.errors import ModelError
from hpo.tasks.registry import get_task
from hpo.tasks.task_data import TaskData
from hpo.training.batches.encoding_cache import EncodingCache
from hpo.training.batches.features import pop_labels
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning
from hpo.training.frozen.cache import USED, PrefixCache
from hpo.training.models.candidate import Candidates, load_candidate, save_model
from hpo.training.models.layers import freeze
from hpo.training.models.processor import load_image_processor
from hpo.training.plan import TrainingPlan
from tests.conftest import NO_EXTRA
from tests.contracts.task_data import write_rows

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason=f"{NO_EXTRA}: timm")
SIDE = 32
# By architecture: settings of a small model, path of the stack, its layers, what is frozen with the first layer.
SMALL: dict[str, tuple[dict[str, Any], str, int, tuple[str, ...]]] = {
    "vgg11": ({"mlp_ratio": 0.01}, "features", 21, ()),
    # Its stages are siblings: the largest is the stack, and freezing its first block freezes the stages before it.
    "resnet10t": ({}, "layer4", 1, ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.")),
    "vit_tiny_patch16_224": (
        {"img_size": SIDE, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2},
        "blocks",
        3,
        ("patch_embed.", "cls_token", "pos_embed"),
    ),
}


def save_timm(folder: Path, architecture: str) -> Path:
    """Save a timm model with random weights in the hub's format; return its folder."""
    from transformers import AutoModel, TimmWrapperConfig

    torch.manual_seed(0)
    settings = {"input_size": (3, SIDE, SIDE), "crop_pct": 0.9, "interpolation": "bicubic"}
    settings |= {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "num_classes": 0}
    arguments = SMALL[architecture][0]
    config = TimmWrapperConfig(architecture=architecture, pretrained_cfg=settings, model_args=arguments)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def test_missing_timm_raises_model_error(tmp_path: Path) -> None:
    if find_spec("timm") is not None:
        pytest.skip(f"{NO_EXTRA}: timm is")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "timm_wrapper", "architecture": "resnet18", "pretrained_cfg": {}, "num_classes": 2})
    )
    torch.save({}, tmp_path / "model.safetensors")
    ref = ModelRef(name=str(tmp_path), label="resnet18")
    with pytest.raises(ModelError, match=r"resnet18: a model of timm needs .* pip install 'hpo-finetune\[timm\]'"):
        load_candidate(ref, "AutoModelForImageClassification", {"num_labels": 2}, lambda _: None)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    folder = write_rows("image-classification", tmp_path_factory.mktemp("images"), 24, 12)
    return get_task("image-classification").prepare(DataConfig(path=str(folder)), 0)


@pytest.fixture
def plan_of(images: TaskData, tmp_path: Path) -> Callable[..., TrainingPlan]:
    def build(architecture: str, **params: Any) -> TrainingPlan:
        task = get_task("image-classification")
        ref = ModelRef(name=str(save_timm(tmp_path / "model", architecture)), label="small")
        candidate = Candidates({"small": ref}, task, images)["small"]
        assert task.check_model(candidate.model, candidate.processor) == ""
        store = EncodingCache(tmp_path / "pixels", task, images)
        return TrainingPlan(
            params=TrialParams(model="small", **{"batch_size": 8, "learning_rate": 1e-3, "epochs": 2, **params}),
            task=task,
            candidate=candidate,
            train=store.get("train", candidate.processor, 0),
            validation=store.get("validation", candidate.processor, 0),
            scorer=task.scorer("accuracy", images),
            rungs_per_epoch=1,
            seed=3,
            folder=tmp_path / "checkpoints",
            execution=Execution(),
        )

    return build


@needs_timm
@pytest.mark.parametrize("architecture", SMALL)
def test_stack_and_frozen_parameters(architecture: str, plan_of: Callable[..., TrainingPlan]) -> None:
    _, path, count, below = SMALL[architecture]
    made = plan_of(architecture)
    stack = made.candidate.stack
    assert (stack.path, stack.count) == (f"timm_model.{path}", count)
    model = made.candidate.build(0)
    freeze(model, stack, 1, {"pixel_values": torch.rand(2, 3, SIDE, SIDE)})
    for name, tensor in model.named_parameters():
        within = name.removeprefix("timm_model.").startswith((f"{path}.0.", *below))
        assert tensor.requires_grad is not within, name


@needs_timm
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft reads it
@pytest.mark.parametrize("peft", ["none", "lora"])
@pytest.mark.parametrize("architecture", SMALL)
def test_trained_model_is_resumed_cached_saved_and_loaded(
    architecture: str, peft: str, plan_of: Callable[..., TrainingPlan], tmp_path: Path
) -> None:
    from transformers import AutoModelForImageClassification

    made = plan_of(architecture, frozen_layers=1, peft=peft)
    run = FineTuning(made)
    reports = list(run.reports())
    assert len(reports) == 2 and all(np.isfinite(report.train_loss) for report in reports)
    stopping = replace(made, folder=tmp_path / "stopped")
    stopped = FineTuning(stopping)
    walk = stopped.reports()
    next(walk)
    stopped.save()
    later = list(FineTuning(stopping).reports())
    assert [(one.value, one.train_loss) for one in later] == [(one.value, one.train_loss) for one in reports[1:]]
    cached = FineTuning(replace(made, prefixes=PrefixCache(tmp_path / "prefixes"), folder=tmp_path / "cached"))
    cached.plan.prefixes._objection = lambda *_: ""  # type: ignore[method-assign, union-attr]
    for one, other in zip(cached.reports(), reports, strict=True):
        assert one.metrics["loss"] == pytest.approx(other.metrics["loss"], rel=1e-3)
    assert cached.execution.prefix_cache == USED
    save_model(run.model, tmp_path / "final")
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "final").eval()
    batch = made.train.collate(np.arange(6))
    pop_labels(run.model, batch)
    with torch.inference_mode():
        found, expected = (model(**batch).logits for model in (loaded, run.model.eval()))  # type: ignore[operator]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert loaded.config.id2label == {0: "down", 1: "up"}


@needs_timm
def test_images_are_processed_as_by_timm(tmp_path: Path) -> None:
    import timm
    from PIL import Image
    from transformers import AutoConfig

    folder = save_timm(tmp_path / "model", "vgg11")
    across, down = np.meshgrid(np.linspace(0, 255, 180), np.linspace(255, 0, 122))
    image = Image.fromarray(np.stack([across, down, (across + down) / 2], 2).astype(np.uint8))
    ours = load_image_processor(ModelRef(name=str(folder), label="m"))(images=[image], return_tensors="pt")
    settings = timm.data.resolve_data_config(AutoConfig.from_pretrained(folder).pretrained_cfg, verbose=False)
    own = timm.data.create_transform(**settings, is_training=False)(image)
    assert ours["pixel_values"][0].shape == own.shape
    # With an odd margin the crop may differ by one row: neighboring pixels of this image differ by 0.1.
    assert float((ours["pixel_values"][0] - own).abs().max()) < 0.15 < float(own.abs().max())
