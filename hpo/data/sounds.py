"""Reading sound files: any rate and number of channels, as one channel at a model's rate."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.data.extras import needs
from hpo.data.media import Item, opened


def read_sound(item: Item, rate: int | None = None) -> NDArray[np.float32]:
    """One channel (the mean of all) of a sound file, resampled to `rate` samples a second, between -1 and 1.

    Raises what soundfile raises for a broken file, and `ValueError` where a file holds no sound or less than it says.
    """
    soundfile = needs("soundfile", "audio", "Reading sound")
    with opened(item) as file, soundfile.SoundFile(file) as sound:
        channels, own, frames = sound.read(dtype="float32", always_2d=True), sound.samplerate, sound.frames
    if len(channels) == 0:
        raise ValueError("it holds no sound")
    if len(channels) < frames:
        raise ValueError(f"it is cut off: {len(channels)} of {frames} samples are there")
    return resample(channels.mean(axis=1), own, rate or own)


def resample(sound: NDArray[Any], own: int, rate: int) -> NDArray[np.float32]:
    """Sound of `own` samples a second at another rate, by a polyphase filter."""
    if own == rate:
        return np.asarray(sound, np.float32)
    from scipy.signal import resample_poly

    shared = math.gcd(own, rate)
    return np.asarray(resample_poly(sound, rate // shared, own // shared), np.float32)
