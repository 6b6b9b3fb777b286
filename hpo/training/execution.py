"""Execution settings of this machine: device, number format, threads, memory; chosen once, recorded in each trial."""

import functools
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from hpo.errors import ConfigError

Dtype = Literal["float32", "bfloat16"]

CONTEXT_BYTES = 600 * 2**20  # of GPU memory that CUDA and its libraries use in each process outside torch's allocator


@dataclass(frozen=True)
class Execution:
    """How a trial is executed. It changes results by rounding only, and is recorded so that a replay uses the same."""

    device: str = "cpu"
    dtype: Dtype = "float32"  # of matrix products; weights and optimizer state stay float32
    threads: int = 1
    workers: int = 1  # processes that share the device's memory (on a CPU: the machine's)
    micro_batch: int | None = None  # inputs per forward pass; None: the full batch, halved when it does not fit
    checkpoint_activations: bool = False  # recompute activations in the backward pass: one input did not fit
    prefix_cache: str | None = None  # "used", or "not used: …" with the reason; None: decided by each trial

    # On a CPU the working set of a pass should fit in the caches: MiniLM evaluates 16-token sentences 2.2 times as fast
    # in batches of 1,024 tokens as of 8,192; a 3-layer BERT trains 283-token texts 1.3 times as fast in micro-batches
    # of 1,100 to 2,300 tokens as in batches of 32, with half the memory.
    @property
    def evaluation_tokens(self) -> int:
        """Padded tokens of a forward pass without gradient."""
        return 16_384 if self.device.startswith("cuda") else 1_024

    @property
    def training_tokens(self) -> int | None:
        """Padded tokens of a forward and backward pass; a larger batch is cut into micro-batches. None: no limit."""
        return None if self.device.startswith("cuda") else 2_048

    @property
    def steps_ahead(self) -> int:
        """Optimizer steps between reads of their losses: a GPU should not wait for the host after each step."""
        return 16 if self.device.startswith("cuda") else 1

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as a torch type."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which forward passes run."""
        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)

    def with_micro_batch(self, micro_batch: int) -> "Execution":
        """Return a copy with another micro-batch."""
        return replace(self, micro_batch=micro_batch)

    def with_checkpoint_activations(self) -> "Execution":
        """Return a copy with activation checkpointing."""
        return replace(self, checkpoint_activations=True)


def choose_execution(device: str, threads: int, workers: int = 1) -> Execution:
    """Return the execution for `device`: bfloat16 where the hardware multiplies it natively, else float32.

    `workers` is the number of processes that share the device's memory.
    """
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device.startswith("cuda") else _cpu_bf16()
    return Execution(device=device, dtype="bfloat16" if native else "float32", threads=threads, workers=workers)


@functools.cache
def _cpu_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 natively: AMX or AVX512-BF16 (MiniLM: 1.7 to 2.2 times as fast)."""
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def apply(execution: Execution) -> None:
    """Set this process's threads; on a GPU, allow TF32 in float32 products and limit memory to the worker's share."""
    torch.set_num_threads(execution.threads)
    if execution.device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.cuda.set_device(execution.device)
        if execution.workers > 1:
            # A process that exceeds its share runs out of memory itself, instead of the others on the device.
            total = torch.cuda.get_device_properties(execution.device).total_memory
            part = (total / execution.workers - CONTEXT_BYTES) / total
            torch.cuda.set_per_process_memory_fraction(max(part, 0.01), execution.device)


@contextmanager
def all_cores(execution: Execution) -> Iterator[None]:
    """Use all cores inside the context, and the threads of `execution` after it."""
    torch.set_num_threads(cores())
    try:
        yield
    finally:
        torch.set_num_threads(execution.threads)


def available_devices() -> list[str]:
    """Return the devices of this machine, GPUs first."""
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] + ["cpu"]


NOT_FOR_CPUS = "trials_per_device: is for GPUs. On CPUs, set `workers` to the number of trials that train at once."


def assign_devices(
    devices: str | tuple[str, ...], workers: int | None = None, per_device: int | None = None
) -> list[str]:
    """Return the device of each worker: `per_device` workers on each GPU (default 1), or max(1, cores // 4) on the CPU.

    `devices` is "auto", "cuda", or names of devices. Raises `ConfigError` for devices that this machine lacks and for
    more workers than `per_device` allows.
    """
    chosen = _resolve_devices(devices)
    if per_device is not None:
        if "cpu" in chosen:
            raise ConfigError(NOT_FOR_CPUS)
        slots = len(chosen) * per_device
        if (workers or 1) > slots:
            raise ConfigError(
                f"workers: trials_per_device: {per_device} has room for {slots} on these devices, not {workers}."
            )
        workers = workers or slots
    if workers is None:
        workers = max(1, cores() // 4) if chosen == ["cpu"] else len(chosen)
    return [chosen[i % len(chosen)] for i in range(workers)]


def _resolve_devices(devices: str | tuple[str, ...]) -> list[str]:
    """Return the names of the devices. Raises `ConfigError` for those that this machine lacks."""
    here = available_devices()
    if devices == "auto":
        return here[:-1] or ["cpu"]
    if devices == "cuda":
        if not here[:-1]:
            raise ConfigError("devices: cuda: this machine has no CUDA device. Devices here: cpu.")
        return here[:-1]
    chosen = [devices] if isinstance(devices, str) else list(devices)
    unknown = [device for device in chosen if device not in here]
    if unknown:
        raise ConfigError(f"devices: '{unknown[0]}' is not on this machine. Devices here: {', '.join(here)}.")
    return chosen


def cores() -> int:
    """Return the number of CPU cores of this process: those it is bound to, at most OMP_NUM_THREADS where set."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(bound, int(limit))) if limit.isdigit() else bound
