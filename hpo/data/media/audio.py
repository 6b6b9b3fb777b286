"""Reading sound files: any rate and number of channels, as one channel at a model's rate."""

import io
import math
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hpo.data.media.files import Item, open_item
from hpo.data.optional import require_module

MAX_SECONDS = 30.0  # unless the study says otherwise: Whisper's window, and more than speech corpora hold


def read_audio(item: Item, rate: int) -> NDArray[np.float32]:
    """One channel of a sound file, as `decode_audio`, resampled to `rate` samples a second."""
    sound, own = decode_audio(item)
    return resample(sound, own, rate)


def decode_audio(item: Item) -> tuple[NDArray[np.float32], int]:
    """One channel (the mean of all) of a sound file, between -1 and 1, and its samples a second.

    Raises what soundfile raises for a broken file, and `ValueError` where a file holds no sound or less than it says.
    """
    soundfile = require_module("soundfile", "audio", "Reading sound")
    with open_item(item) as file:
        _check_whole(file)
        with soundfile.SoundFile(file) as sound:
            channels, own, frames = sound.read(dtype="float32", always_2d=True), sound.samplerate, sound.frames
    if len(channels) == 0:
        raise ValueError("it holds no sound")
    if len(channels) < frames:
        raise ValueError(f"it is cut off: {len(channels)} of {frames} samples are there")
    return channels.mean(axis=1), own


def _check_whole(file: BinaryIO) -> None:
    """Raise `ValueError` where a wav file ends before its header says so: its reader takes what is there."""
    header = file.read(8)
    there = file.seek(0, io.SEEK_END)
    file.seek(0)
    said = int.from_bytes(header[4:8], "little") + 8
    if header[:4] == b"RIFF" and there < said < 2**32 - 1:  # a stream's header holds no size but the largest number
        raise ValueError(f"it is cut off: {there:,} of {said:,} bytes are there")


def resample(sound: NDArray[Any], own: int, rate: int) -> NDArray[np.float32]:
    """Sound of `own` samples a second at another rate, by a polyphase filter."""
    if own == rate:
        return np.asarray(sound, np.float32)
    from scipy.signal import resample_poly

    shared = math.gcd(own, rate)
    return np.asarray(resample_poly(sound, rate // shared, own // shared), np.float32)
