"""Measures what inference with a model takes: parameters, memory, and latency of one prediction."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from hpo.config.constraints import Footprint
from hpo.config.model_ref import ModelRef
from hpo.tasks.base import Task
from hpo.training.batches.features import Features, pop_labels
from hpo.training.models.hub import from_pretrained_arguments

TIMED = 15  # predictions, after two warm-up ones
SECONDS = 3.0  # after which no further prediction of a large model is timed


def footprint_from_config(ref: ModelRef, auto_class: str, head: Mapping[str, Any]) -> Footprint | None:
    """Return parameters and memory from the model's config, without loading or allocating weights.

    None where the config does not suffice or the model cannot be found: the error is reported when it is loaded.
    """
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(ref.name, **from_pretrained_arguments(ref), **head)
        with torch.device("meta"):
            model = getattr(transformers, auto_class).from_config(config, trust_remote_code=ref.trust_remote_code)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError):
        # No such model, an architecture unknown to transformers, one that the meta device does not support.
        return None
    return Footprint(params=sum(p.numel() for p in model.parameters()), memory_mb=_megabytes(4 * _element_count(model)))


def measure_footprint(model: nn.Module, features: Features, task: Task, device: str) -> Footprint:
    """Measure the prediction of one input of median length in float32 on `device`; the model stays there.

    The latency is the minimum of several predictions: other work on the machine only adds to it.
    """
    model.to(device).eval()
    middle = np.argsort(features.lengths, kind="stable")[len(features) // 2]
    example = {name: tensor.to(device) for name, tensor in features.collate(np.array([middle])).items()}
    pop_labels(model, example)
    given = {name: tensor for name, tensor in example.items() if name in ("input_ids", "attention_mask")}

    def predict() -> None:
        with torch.inference_mode():
            task.generate(model, given, greedy=False) if task.generation is not None else task.logits(model, example)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    seconds = min(_times(predict))
    memory = 4 * _element_count(model) + _peak_bytes(predict, device)
    params = sum(p.numel() for p in model.parameters())
    return Footprint(params=params, memory_mb=_megabytes(memory), latency_ms=round(1000 * seconds, 3))


def _times(predict: Callable[[], None]) -> list[float]:
    """Return the seconds of up to `TIMED` predictions, without the two warm-up ones."""
    seconds: list[float] = []
    while len(seconds) < TIMED + 2 and (len(seconds) < 3 or sum(seconds) < SECONDS):
        started = time.perf_counter()
        predict()
        seconds.append(time.perf_counter() - started)
    return seconds[2:]


def _peak_bytes(predict: Callable[[], None], device: str) -> float:
    """Return the peak of the bytes that a prediction allocates."""
    if not device.startswith("cuda"):
        return allocated_bytes(predict)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    predict()
    return float(torch.cuda.max_memory_allocated(device) - before)


def allocated_bytes(run: Callable[[], None]) -> float:
    """Return the peak of the CPU memory that `run` allocates, in bytes.

    It is summed over torch's allocations and releases. Resident memory would not show it: a process keeps memory that
    earlier trials freed and serves the next step from it.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler logs its start and stop to stderr otherwise
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = profile.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    return float(np.cumsum([size for _, size in sorted(changes)]).max(initial=0))


def _element_count(model: nn.Module) -> int:
    """Return the number of elements of a model's parameters and buffers, shared ones once."""
    return sum(tensor.numel() for tensor in {id(t): t for t in (*model.parameters(), *model.buffers())}.values())


def _megabytes(size: float) -> float:
    return round(size / 2**20, 3)
