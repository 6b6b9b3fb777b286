"""Classifies the exceptions of a trial: caused by the trial, by the device, by the disk, or by a bug."""

import errno
from collections.abc import Iterator

import torch

from hpo.errors import HpoError, TrialError
from hpo.training.memory.out_of_memory import is_out_of_memory

# Messages of GPU libraries after which every further call of the process fails.
_LOST_DEVICE = (
    "CUDA error",
    "HIP error",
    "CUBLAS_STATUS_",
    "CUDNN_STATUS_",
    "cuDNN error",
    "unspecified launch failure",
)
# The files of torch that call a module's `forward`, and the backward pass.
_PASSES = {torch.nn.modules.module.__file__, torch.autograd.graph.__file__}
_FULL_DISK = ("No space left on device", "database or disk is full")


def reason_to_fail(error: BaseException) -> str | None:
    """Return why this error fails the trial only; None where the trial did not cause it.

    Lack of memory anywhere (loading, evaluating) fails the trial: training itself tries smaller micro-batches first.
    """
    if isinstance(error, TrialError):
        return f"{type(error).__name__}: {error}"
    if is_device_lost(error):
        return None
    for cause in _chain(error):
        if is_out_of_memory(cause):
            return f"OutOfMemory: {str(cause).strip() or 'the process cannot allocate more memory'}"
    if is_raised_in_model(error) and not is_disk_full(error):
        message = " ".join(str(error).split())[:400]
        return f"ModelError: a forward or backward pass of the model failed: {type(error).__name__}: {message}"
    return None


def is_raised_in_model(error: BaseException) -> bool:
    """Return whether the exception of a library or model left a module's forward pass or a loss's backward pass.

    Then it costs the trials of that model: another model of the study may do without.
    """
    traceback, files = error.__traceback__, set()
    while traceback is not None:
        files.add(traceback.tb_frame.f_code.co_filename)
        traceback = traceback.tb_next
    return isinstance(error, Exception) and not isinstance(error, HpoError) and bool(files & _PASSES)


def is_device_lost(error: BaseException) -> bool:
    """Return whether a GPU failed for the rest of the process's life (a sticky error), so that a new process is needed.

    A full GPU is not lost: the allocation is refused, and the next call works.
    """
    return any(
        isinstance(cause, torch.AcceleratorError)
        or (isinstance(cause, RuntimeError) and any(message in str(cause) for message in _LOST_DEVICE))
        for cause in _chain(error)
        if not is_out_of_memory(cause)
    )


def is_disk_full(error: BaseException) -> bool:
    """Return whether a write failed for lack of space: by error code, or the message of safetensors or SQLite."""
    return any(
        getattr(cause, "errno", None) == errno.ENOSPC or any(message in str(cause) for message in _FULL_DISK)
        for cause in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and its causes: a metric's `ConfigError`, for example, has the exception of the user's code."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
