"""Sound changed at random for training: shift, noise, specaugment."""

from collections.abc import Callable, Sequence

import torch

Batch = dict[str, torch.Tensor]

SHIFT = 0.1  # of a clip's length, at most, to either side
NOISE_DB = (10.0, 40.0)  # how far below the sound the noise lies
TIME_MASKS, TIME_SHARE = 2, 0.08  # masks, and how much of the time one covers at most
BAND_MASKS, BAND_SHARE = 2, 0.2


def augment_audio(batch: Batch, names: Sequence[str]) -> Batch:
    """A batch of waveforms [clips, samples] or of spectrograms, changed by the augmentations called `names`, in turn.

    What is drawn comes from torch's generator, which a checkpoint keeps.
    """
    name = "input_values" if "input_values" in batch else "input_features"
    values = batch[name]
    lengths = batch["attention_mask"].sum(1) if "attention_mask" in batch else None
    for augmentation in names:
        values = AUGMENTATIONS[augmentation](values.clone(), lengths, name)
    return {**batch, name: values}


def shift(values: torch.Tensor, lengths: torch.Tensor | None, name: str) -> torch.Tensor:
    """Each clip begins up to a tenth of its length earlier or later; what leaves at one end is replaced by zeros."""
    axis = _time_axis(values, name)
    for place, clip in enumerate(values):
        length = clip.shape[axis] if lengths is None else int(lengths[place])
        by = int(torch.randint(-int(SHIFT * length), int(SHIFT * length) + 1, ()))
        sound = clip.narrow(axis, 0, length)
        moved = sound.roll(by, axis)
        gone = moved.narrow(axis, 0, by) if by >= 0 else moved.narrow(axis, length + by, -by)
        gone.fill_(0.0 if values.ndim == 2 else float(sound.min()))
        sound.copy_(moved)
    return values


def noise(values: torch.Tensor, lengths: torch.Tensor | None, name: str) -> torch.Tensor:
    """White noise, 10 to 40 dB below each clip; in a spectrogram as much as its deviation says."""
    for place, clip in enumerate(values):
        sound = clip if lengths is None else clip[: int(lengths[place])]
        below = float(torch.empty(()).uniform_(*NOISE_DB))
        sound += torch.randn_like(sound) * sound.std(unbiased=False) * 10 ** (-below / 20)
    return values


def spec_augment(values: torch.Tensor, lengths: torch.Tensor | None, name: str) -> torch.Tensor:
    """Two spans of time, and of a spectrogram two bands of frequency, are blanked (SpecAugment; Park et al., 2019)."""
    axis = _time_axis(values, name)
    for place, clip in enumerate(values):
        length = clip.shape[axis] if lengths is None else int(lengths[place])
        blank = 0.0 if values.ndim == 2 else float(clip.mean())
        for _ in range(TIME_MASKS):
            _blank(clip.narrow(axis, 0, length), axis, TIME_SHARE, blank)
        for _ in range(BAND_MASKS if values.ndim == 3 else 0):
            _blank(clip, 1 - axis, BAND_SHARE, blank)
    return values


AUGMENTATIONS: dict[str, Callable[[torch.Tensor, torch.Tensor | None, str], torch.Tensor]] = {
    "shift": shift,
    "noise": noise,
    "specaugment": spec_augment,
}


def _blank(clip: torch.Tensor, axis: int, share: float, value: float) -> None:
    size = clip.shape[axis]
    width = int(torch.randint(0, max(1, int(share * size)) + 1, ()))
    start = int(torch.randint(0, size - width + 1, ()))
    clip.narrow(axis, start, width).fill_(value)


def _time_axis(values: torch.Tensor, name: str) -> int:
    """Of one clip: Whisper's `input_features` are [bands, frames], AST's `input_values` [frames, bands]."""
    return 1 if values.ndim == 3 and name == "input_features" else 0
