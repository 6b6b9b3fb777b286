"""Random augmentation of audio: shift, noise, specaugment."""

from collections.abc import Callable, Sequence

import torch

Batch = dict[str, torch.Tensor]

SHIFT = 0.1  # maximum, as a fraction of a clip's length, in either direction
NOISE_DB = (10.0, 40.0)  # of the noise, below the clip
TIME_MASKS, TIME_SHARE = 2, 0.08  # number of masks, and the maximum fraction of the time that one covers
BAND_MASKS, BAND_SHARE = 2, 0.2


def augment_audio(batch: Batch, names: Sequence[str]) -> Batch:
    """Return a batch of waveforms [clips, samples] or spectrograms, changed by the augmentations `names`, in turn.

    Random numbers come from torch's generator, whose state checkpoints keep.
    """
    name = "input_values" if "input_values" in batch else "input_features"
    values = batch[name]
    lengths = batch["attention_mask"].sum(1) if "attention_mask" in batch else None
    for augmentation in names:
        values = AUGMENTATIONS[augmentation](values.clone(), lengths, name)
    return {**batch, name: values}


def shift(values: torch.Tensor, lengths: torch.Tensor | None, name: str) -> torch.Tensor:
    """Shift each clip by up to a tenth of its length in either direction; the gap is filled with silence."""
    axis = _time_axis(values, name)
    for index, clip in enumerate(values):
        length = clip.shape[axis] if lengths is None else int(lengths[index])
        by = int(torch.randint(-int(SHIFT * length), int(SHIFT * length) + 1, ()))
        unpadded = clip.narrow(axis, 0, length)
        shifted = unpadded.roll(by, axis)
        gap = shifted.narrow(axis, 0, by) if by >= 0 else shifted.narrow(axis, length + by, -by)
        gap.fill_(0.0 if values.ndim == 2 else float(unpadded.min()))
        unpadded.copy_(shifted)
    return values


def noise(values: torch.Tensor, lengths: torch.Tensor | None, name: str) -> torch.Tensor:
    """Add white noise, 10 to 40 dB below each clip; in a spectrogram relative to its standard deviation."""
    for index, clip in enumerate(values):
        unpadded = clip if lengths is None else clip[: int(lengths[index])]
        decibels = float(torch.empty(()).uniform_(*NOISE_DB))
        unpadded += torch.randn_like(unpadded) * unpadded.std(unbiased=False) * 10 ** (-decibels / 20)
    return values


def spec_augment(values: torch.Tensor, lengths: torch.Tensor | None, name: str) -> torch.Tensor:
    """Mask two spans of time, and in a spectrogram two frequency bands (SpecAugment; Park et al., 2019)."""
    axis = _time_axis(values, name)
    for index, clip in enumerate(values):
        length = clip.shape[axis] if lengths is None else int(lengths[index])
        value = 0.0 if values.ndim == 2 else float(clip.mean())
        for _ in range(TIME_MASKS):
            _mask(clip.narrow(axis, 0, length), axis, TIME_SHARE, value)
        for _ in range(BAND_MASKS if values.ndim == 3 else 0):
            _mask(clip, 1 - axis, BAND_SHARE, value)
    return values


AUGMENTATIONS: dict[str, Callable[[torch.Tensor, torch.Tensor | None, str], torch.Tensor]] = {
    "shift": shift,
    "noise": noise,
    "specaugment": spec_augment,
}


def _mask(clip: torch.Tensor, axis: int, share: float, value: float) -> None:
    size = clip.shape[axis]
    width = int(torch.randint(0, max(1, int(share * size)) + 1, ()))
    start = int(torch.randint(0, size - width + 1, ()))
    clip.narrow(axis, start, width).fill_(value)


def _time_axis(values: torch.Tensor, name: str) -> int:
    """Return the time axis: Whisper's `input_features` are [bands, frames], AST's `input_values` [frames, bands]."""
    return 1 if values.ndim == 3 and name == "input_features" else 0
