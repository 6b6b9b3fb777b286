"""Audio files: any sampling rate and number of channels, as one channel at a model's rate."""

import io
import math
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hpo.data.media.files import Item, open_item
from hpo.data.optional import require_module

MAX_SECONDS = 30.0  # the default limit: Whisper's window, and longer than the clips of speech corpora


def read_audio(item: Item, rate: int) -> NDArray[np.float32]:
    """Return one channel of an audio file, as `decode_audio`, resampled to `rate` Hz."""
    samples, own = decode_audio(item)
    return resample(samples, own, rate)


def decode_audio(item: Item) -> tuple[NDArray[np.float32], int]:
    """Return the mean of all channels of an audio file, between -1 and 1, and its sampling rate in Hz.

    Raises the exceptions of soundfile for a corrupt file, and `ValueError` for one that is empty or truncated.
    """
    soundfile = require_module("soundfile", "audio", "Reading audio")
    with open_item(item) as file:
        _check_complete(file)
        with soundfile.SoundFile(file) as clip:
            channels, own, frames = clip.read(dtype="float32", always_2d=True), clip.samplerate, clip.frames
    if len(channels) == 0:
        raise ValueError("it contains no audio")
    if len(channels) < frames:
        raise ValueError(f"it is truncated: it has {len(channels)} of {frames} samples")
    undefined = len(channels) - int(np.isfinite(channels).all(axis=1).sum())
    if undefined:
        raise ValueError(f"{undefined} of its {len(channels)} samples are not numbers (NaN or infinite)")
    return channels.mean(axis=1), own


def _check_complete(file: BinaryIO) -> None:
    """Raise `ValueError` where a wav file is shorter than its header states: soundfile would read what exists."""
    header = file.read(8)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    stated = int.from_bytes(header[4:8], "little") + 8
    if header[:4] == b"RIFF" and size < stated < 2**32 - 1:  # a streamed file's header has the largest number instead
        raise ValueError(f"it is truncated: it has {size:,} of {stated:,} bytes")


def resample(samples: NDArray[Any], own: int, rate: int) -> NDArray[np.float32]:
    """Return samples of `own` Hz resampled to `rate` Hz by a polyphase filter."""
    if own == rate:
        return np.asarray(samples, np.float32)
    from scipy.signal import resample_poly

    divisor = math.gcd(own, rate)
    return np.asarray(resample_poly(samples, rate // divisor, own // divisor), np.float32)
