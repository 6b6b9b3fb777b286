"""What an exception in a trial tells: the trial is at fault, or the device, the disk, or hpo itself."""

import errno
from collections.abc import Iterator

import torch

from hpo.errors import TrialError
from hpo.training.memory.out_of_memory import is_out_of_memory

# How a GPU's libraries begin an error after which each further call of the process fails too.
_LOST_DEVICE = (
    "CUDA error",
    "HIP error",
    "CUBLAS_STATUS_",
    "CUDNN_STATUS_",
    "cuDNN error",
    "unspecified launch failure",
)
_FULL_DISK = ("No space left on device", "database or disk is full")


def reason_to_fail(error: BaseException) -> str | None:
    """Why this error costs the trial and no more, for people; None where it is not the trial's own.

    A trial that the machine's memory does not hold is one, wherever it was (loading, evaluating): training itself
    tries smaller micro-batches first.
    """
    if isinstance(error, TrialError):
        return f"{type(error).__name__}: {error}"
    if is_device_lost(error):
        return None
    for cause in _chain(error):
        if is_out_of_memory(cause):
            return f"OutOfMemory: {str(cause).strip() or 'the process may have no more memory'}"
    return None


def is_device_lost(error: BaseException) -> bool:
    """Whether a GPU failed for the rest of the process's life: a sticky error, after which a new one is needed.

    A GPU that is full is none: what was asked for is refused, and the next call works.
    """
    return any(
        isinstance(cause, torch.AcceleratorError)
        or (isinstance(cause, RuntimeError) and any(words in str(cause) for words in _LOST_DEVICE))
        for cause in _chain(error)
        if not is_out_of_memory(cause)
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for want of space: as the system tells it, or in the words of safetensors or SQLite."""
    return any(
        getattr(cause, "errno", None) == errno.ENOSPC or any(words in str(cause) for words in _FULL_DISK)
        for cause in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from: a metric's own code, say, is told as a `ConfigError` from what it raised."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
