"""Augmentation of waveforms and spectrograms."""

from pathlib import Path

import pytest
import torch

from hpo.tasks.augmentation.audio import AUGMENTATIONS, augment_audio


@pytest.mark.parametrize("architecture", ["wav2vec2", "whisper", "audio-spectrogram-transformer"])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_changes_clips_but_not_padding(name: str, architecture: str, tmp_path: Path) -> None:
    key = "input_features" if architecture == "whisper" else "input_values"
    shape = {"whisper": (4, 16, 100), "wav2vec2": (4, 800)}.get(architecture, (4, 64, 16))
    torch.manual_seed(1)
    batch = {key: torch.randn(*shape)}
    if architecture == "wav2vec2":
        batch["attention_mask"] = (torch.arange(800)[None] < torch.tensor([800, 600, 400, 200])[:, None]).long()
        batch[key] *= batch["attention_mask"]
    before = batch[key].clone()
    torch.manual_seed(5)
    changed = augment_audio(batch, [name])[key]
    assert torch.equal(batch[key], before) and changed.shape == before.shape
    assert all((one != other).any() for one, other in zip(changed, before, strict=True))
    if architecture == "wav2vec2":
        assert (changed[batch["attention_mask"] == 0] == 0).all()
    torch.manual_seed(5)
    assert torch.equal(changed, augment_audio(batch, [name])[key])
