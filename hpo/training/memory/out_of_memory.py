"""When memory does not suffice: telling such an error from a bug, and going on with less at a time."""

import re
from collections.abc import Callable
from typing import TypeVar

import torch

from hpo.errors import OutOfMemory

T = TypeVar("T")

# In the words of torch's allocator, the system's, C++'s, and of oneDNN, cuBLAS, cuDNN and the driver, which allocate
# on their own. oneDNN says no more when it has no room for the code of a kernel (seen under RLIMIT_AS); a shape that
# it does not know is one of a "primitive descriptor".
TOLD = re.compile(
    r"can't allocate memory|Cannot allocate memory|bad_alloc|could not create a memory"
    r"|could not create a primitive(?! descriptor)|_STATUS_ALLOC_FAILED|(CUDA|HIP) error: out of memory"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory does not suffice."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or TOLD.search(str(error)) is not None


def release(device: str) -> None:
    """Give back what the allocator of `device` keeps for later. To be called past the error and all that it holds."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def with_fewer_tokens(attempt: Callable[[int], T], tokens: int, longest: int, device: str) -> T:
    """`attempt(tokens)`, begun again with half as many for as long as memory does not suffice.

    Batches go longest first, so that what does not fit shows at once. Raises `OutOfMemory` where not even one example
    (of up to `longest` tokens) fits.
    """
    while True:
        try:
            return attempt(tokens)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        release(device)
        if tokens <= longest:
            raise does_not_fit(longest)
        tokens //= 2


def does_not_fit(longest: int) -> OutOfMemory:
    """The error of a trial whose examples are too long for this machine."""
    return OutOfMemory(f"one example of up to {longest} tokens does not fit in memory")
