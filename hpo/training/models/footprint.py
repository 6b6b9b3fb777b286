"""What a model takes where it is used: parameters, memory, and the time of one answer."""

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
from hpo.training.memory.micro_batch import allocated_bytes
from hpo.training.models.hub import from_pretrained_arguments

ANSWERS = 15  # that are timed, after two that warm up
SECONDS = 3.0  # enough for a large model


def footprint_from_config(ref: ModelRef, auto_class: str, head: Mapping[str, Any]) -> Footprint | None:
    """By the model's config alone: no weight is read or even made. None where that does not tell.

    What is wrong with the model is told when it is read.
    """
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(ref.name, **from_pretrained_arguments(ref), **head)
        with torch.device("meta"):
            model = getattr(transformers, auto_class).from_config(config, trust_remote_code=ref.trust_remote_code)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError):
        # No such model, one that transformers does not know, one that "meta" cannot make: each has its own error, and
        # is told with the person's words when the model is read. This look only saves that where it can.
        return None
    return Footprint(params=sum(p.numel() for p in model.parameters()), memory_mb=_megabytes(4 * _numbers(model)))


def measure_footprint(model: nn.Module, features: Features, task: Task, device: str) -> Footprint:
    """Answer one example of median length in float32, as a final model does, on `device`; the model is left there.

    The time is the least of a few: other work on the machine only adds to it.
    """
    model.to(device).eval()
    middle = np.argsort(features.lengths, kind="stable")[len(features) // 2]
    example = {name: tensor.to(device) for name, tensor in features.collate(np.array([middle])).items()}
    pop_labels(model, example)
    given = {name: tensor for name, tensor in example.items() if name in ("input_ids", "attention_mask")}

    def answer() -> None:
        with torch.inference_mode():
            task.generate(model, given, greedy=False) if task.generation is not None else task.logits(model, example)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    seconds = min(_times(answer))
    taken = 4 * _numbers(model) + _taken_beside(answer, device)
    params = sum(p.numel() for p in model.parameters())
    return Footprint(params=params, memory_mb=_megabytes(taken), latency_ms=round(1000 * seconds, 3))


def _times(answer: Callable[[], None]) -> list[float]:
    """Seconds of up to `ANSWERS` answers, the first two left out where there are more."""
    seconds: list[float] = []
    while len(seconds) < ANSWERS + 2 and (len(seconds) < 3 or sum(seconds) < SECONDS):
        started = time.perf_counter()
        answer()
        seconds.append(time.perf_counter() - started)
    return seconds[2:]


def _taken_beside(answer: Callable[[], None], device: str) -> float:
    """The most bytes that an answer holds at one moment beside the model."""
    if not device.startswith("cuda"):
        return allocated_bytes(answer)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    answer()
    return float(torch.cuda.max_memory_allocated(device) - before)


def _numbers(model: nn.Module) -> int:
    """How many numbers are saved of a model: its parameters and buffers, shared ones once."""
    return sum(tensor.numel() for tensor in {id(t): t for t in (*model.parameters(), *model.buffers())}.values())


def _megabytes(size: float) -> float:
    return round(size / 2**20, 3)
