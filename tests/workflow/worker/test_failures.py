"""Classification of errors by what they cost: the trial, the process, or the study."""

import pytest
import torch

from hpo.errors import Diverged
from hpo.training.memory.out_of_memory import is_out_of_memory
from hpo.workflow.worker.failures import is_device_lost, reason_to_fail


@pytest.mark.parametrize(
    ("message", "memory", "device"),
    [
        ("CUDA error: misaligned address", False, True),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`", False, True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True, False),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True, False),
        ("CUDA error: out of memory", True, False),
        ("could not create a primitive", True, False),
        ("could not create a primitive descriptor for a matmul primitive", False, False),
        ("mat1 and mat2 shapes cannot be multiplied", False, False),
    ],
)
@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
def test_message_of_a_library_is_memory_device_or_bug(
    kind: type[RuntimeError], message: str, memory: bool, device: bool
) -> None:
    error = kind(message)
    assert is_out_of_memory(error) == memory
    assert is_device_lost(error) == (device or (kind is torch.AcceleratorError and not memory))
    assert (reason_to_fail(error) or "").startswith("OutOfMemory") == memory


def test_device_lost_after_lack_of_memory_is_lost() -> None:
    lost = RuntimeError("CUDA error: unspecified launch failure")
    lost.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    assert is_device_lost(lost) and reason_to_fail(lost) is None
    assert reason_to_fail(Diverged("the loss became nan")) == "Diverged: the loss became nan"
