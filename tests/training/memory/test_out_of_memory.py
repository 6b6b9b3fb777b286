"""Out-of-memory errors: recognized by type or message, and retried with fewer tokens."""

import pytest
import torch

from hpo.errors import OutOfMemory
from hpo.training.memory.out_of_memory import is_out_of_memory, with_fewer_tokens


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a primitive descriptor for a matmul primitive"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("bad value"), False),
    ],
)
def test_errors_are_recognized(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_tokens_are_halved_until_they_fit() -> None:
    tried: list[int] = []

    def attempt(tokens: int) -> str:
        tried.append(tokens)
        if tokens > 30:
            raise MemoryError
        return "done"

    assert with_fewer_tokens(attempt, 100, longest=10, device="cpu") == "done"
    assert tried == [100, 50, 25]


def test_one_input_that_does_not_fit_raises_out_of_memory() -> None:
    def attempt(tokens: int) -> None:
        raise MemoryError

    with pytest.raises(OutOfMemory, match="up to 40 tokens"):
        with_fewer_tokens(attempt, 100, longest=40, device="cpu")


def test_other_errors_are_raised() -> None:
    def attempt(tokens: int) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        with_fewer_tokens(attempt, 100, longest=10, device="cpu")
