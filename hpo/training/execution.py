"""The arithmetic of this machine: device, number format and threads, decided once and recorded in each trial."""

import functools
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from hpo.errors import ConfigError

Dtype = Literal["float32", "bfloat16"]

CONTEXT_BYTES = 600 * 2**20  # what CUDA and its libraries take of a GPU for each process, beside torch's allocator


@dataclass(frozen=True)
class Execution:
    """How a trial is carried out: nothing here changes what is computed, but for rounding. Recorded for replay."""

    device: str = "cpu"
    dtype: Dtype = "float32"  # of matrix products; weights and optimizer state stay float32
    threads: int = 1
    workers: int = 1  # processes that share the device's memory (on a CPU: the machine's)
    micro_batch: int | None = None  # examples per forward pass; None: the whole batch, halved when it does not fit
    checkpoint_activations: bool = False  # compute them again in the backward pass: one example did not fit
    prefix_cache: str | None = None  # "used", or "not used: …" with the reason; None: decided by each trial

    # On a CPU what a pass touches should stay in its caches: MiniLM evaluates 16-token sentences 2.2 times as fast in
    # batches of 1,024 tokens as of 8,192; a 3-layer BERT trains 283-token texts 1.3 times as fast in micro-batches of
    # 1,100 to 2,300 tokens as in batches of 32, with half the memory.
    @property
    def evaluation_tokens(self) -> int:
        """Padded tokens of a forward pass without gradient."""
        return 16_384 if self.device.startswith("cuda") else 1_024

    @property
    def training_tokens(self) -> int | None:
        """Padded tokens of a forward and backward pass; a larger batch is done in micro-batches. None: no limit."""
        return None if self.device.startswith("cuda") else 2_048

    @property
    def steps_ahead(self) -> int:
        """Optimizer steps after which their losses are read: a GPU should not wait for the host after each."""
        return 16 if self.device.startswith("cuda") else 1

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch names it."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which forward passes run."""
        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)

    def with_micro_batch(self, micro_batch: int) -> "Execution":
        return replace(self, micro_batch=micro_batch)

    def with_checkpoint_activations(self) -> "Execution":
        return replace(self, checkpoint_activations=True)


def choose_execution(device: str, threads: int, workers: int = 1) -> Execution:
    """The right arithmetic for `device`: bfloat16 where the hardware multiplies it natively, else float32.

    `workers` is how many processes share the device's memory.
    """
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device.startswith("cuda") else _cpu_bf16()
    return Execution(device=device, dtype="bfloat16" if native else "float32", threads=threads, workers=workers)


@functools.cache
def _cpu_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 natively: AMX, or AVX512-BF16 (MiniLM: 1.7 to 2.2 times float32's speed)."""
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def apply(execution: Execution) -> None:
    """Set this process's threads, and TF32 for float32 products on a GPU."""
    torch.set_num_threads(execution.threads)
    if execution.device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.cuda.set_device(execution.device)
        if execution.workers > 1:
            # What a process takes beyond its part is its own trial's want of memory, not its neighbours'.
            total = torch.cuda.get_device_properties(execution.device).total_memory
            part = (total / execution.workers - CONTEXT_BYTES) / total
            torch.cuda.set_per_process_memory_fraction(max(part, 0.01), execution.device)


@contextmanager
def all_cores(execution: Execution) -> Iterator[None]:
    """Let this process's threads take every core meanwhile, then those of `execution` again."""
    torch.set_num_threads(cores())
    try:
        yield
    finally:
        torch.set_num_threads(execution.threads)


def available_devices() -> list[str]:
    """The devices of this machine, GPUs first."""
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] + ["cpu"]


NOT_FOR_CPUS = "trials_per_device: is for GPUs. On CPUs, `workers` says how many trials train at once."


def assign_devices(
    devices: str | tuple[str, ...], workers: int | None = None, per_device: int | None = None
) -> list[str]:
    """The device of each worker process: `per_device` on each GPU (one unless told), or on the CPU max(1, cores // 4).

    Raises `ConfigError` for devices that are not here, and for more workers than `per_device` allows.
    """
    here = available_devices()
    if devices == "auto":
        chosen = here[:-1] or ["cpu"]
    elif devices == "cuda":
        chosen = here[:-1]
        if not chosen:
            raise ConfigError("devices: cuda: this machine has no CUDA device. Devices here: cpu.")
    else:
        chosen = [devices] if isinstance(devices, str) else list(devices)
    unknown = [device for device in chosen if device not in here]
    if unknown:
        raise ConfigError(f"devices: '{unknown[0]}' is not on this machine. Devices here: {', '.join(here)}.")
    if per_device is not None:
        if "cpu" in chosen:
            raise ConfigError(NOT_FOR_CPUS)
        places = len(chosen) * per_device
        if (workers or 1) > places:
            raise ConfigError(
                f"workers: trials_per_device: {per_device} has room for {places} on these devices, not {workers}."
            )
        workers = workers or places
    if workers is None:
        workers = max(1, cores() // 4) if chosen == ["cpu"] else len(chosen)
    return [chosen[i % len(chosen)] for i in range(workers)]


def cores() -> int:
    """The CPU cores this process may use: those it is bound to, at most OMP_NUM_THREADS where that is set."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(bound, int(limit))) if limit.isdigit() else bound
