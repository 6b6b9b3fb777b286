"""Recognizes out-of-memory errors and retries with smaller batches."""

import re
from collections.abc import Callable
from typing import TypeVar

import torch

from hpo.errors import OutOfMemory

T = TypeVar("T")

# Messages of torch's allocator, the system, C++, and of oneDNN, cuBLAS, cuDNN and the driver, which allocate on their
# own. oneDNN raises its bare message when there is no memory for a kernel's code (seen under RLIMIT_AS); for a shape
# that it does not support, the message has "primitive descriptor".
MESSAGES = re.compile(
    r"can't allocate memory|Cannot allocate memory|bad_alloc|could not create a memory"
    r"|could not create a primitive(?! descriptor)|_STATUS_ALLOC_FAILED|(CUDA|HIP) error: out of memory"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory does not suffice."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or MESSAGES.search(str(error)) is not None


def release_memory(device: str) -> None:
    """Release the memory that the allocator of `device` caches. Call it after the except block of the error."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def with_fewer_tokens(attempt: Callable[[int], T], tokens: int, longest: int, device: str) -> T:
    """Call `attempt(tokens)`, halving `tokens` while memory does not suffice.

    Evaluation batches are sorted longest first, so that a batch that does not fit fails early. Raises `OutOfMemory`
    where one input (of up to `longest` tokens) does not fit.
    """
    while True:
        try:
            return attempt(tokens)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        release_memory(device)
        if tokens <= longest:
            raise does_not_fit(longest)
        tokens //= 2


def does_not_fit(longest: int) -> OutOfMemory:
    """Return the error of a trial whose inputs are too long for this machine."""
    return OutOfMemory(f"one input of up to {longest} tokens does not fit in memory")
