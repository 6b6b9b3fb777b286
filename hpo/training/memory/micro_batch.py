"""Memory that fits: the largest micro-batch is found before the first step, once a machine, and remembered.

folder/KEY.json    what was measured for one model, length, count of frozen layers, adapters, kind of device, format

On a GPU real steps on the longest examples tell. On a CPU no error would: a process that takes too much is killed. So
what steps of 1, 2 and 4 examples allocate is extrapolated to the room that the machine or container leaves. Most models
fit by far; that is seen from their shape, and nothing is run.
"""

import hashlib
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hpo.config.trial_params import TrialParams
from hpo.training.accumulation import Accumulation, MicroBatchTooLarge
from hpo.training.batches.features import Features, Indices
from hpo.training.execution import Execution
from hpo.training.models.candidate import Candidate

FORMAT = 1  # raise it when what is measured changes
MEASURED = (1, 2, 4)  # examples
MARGIN = 0.15  # of the limit, left free: allocators round up and keep a part of what is freed
PARENT_BYTES = 600 * 2**20  # the search's own process beside its workers: imports, the data, the models it checked
STATES = 3  # float32 numbers a trained weight comes with: its gradient and AdamW's two moments


class MicroBatchCache:
    """What one machine found out about memory, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fit(
        self,
        accumulation: Accumulation,
        features: Features,
        candidate: Candidate,
        frozen_layers: int,
        params: TrialParams,
    ) -> None:
        """Have `accumulation` take no more examples at once than fit, by the longest of `features`.

        What its execution has decided stays. The run draws the same random numbers, measured or not.
        """
        execution = accumulation.execution
        if execution.micro_batch is not None or execution.checkpoint_activations:
            return
        longest = features.longest
        rows = np.argsort(features.lengths, kind="stable")[::-1][: params.batch_size]
        cuda = execution.device.startswith("cuda")
        if not cuda:
            assert execution.training_tokens is not None
            rows = rows[: max(1, execution.training_tokens // longest)]
            room = free_bytes(execution.workers) - 4 * STATES * _trainable(accumulation.model)
            bound = activation_bound(accumulation.model, candidate.stack.count, len(rows), longest)
            # Before the layers others compute much more (convolutions); DoRA makes each whole matrix anew in each step.
            if bound <= room and "input_ids" in features.columns and not params.use_dora:
                return
        kind = torch.cuda.get_device_name(execution.device) if cuda else "cpu"
        parts = [FORMAT, candidate.digest, longest, frozen_layers, kind, execution.dtype, execution.workers]
        if params.peft != "none":
            parts += [params.peft, params.lora_r, params.lora_targets, params.use_dora, params.lora_dropout > 0]
            parts += ["4bit"] if params.is_quantized else []
        place = self._folder / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]}.json"
        fitting = (
            self._by_trying(place, accumulation, features, rows)
            if cuda
            else self._by_extrapolating(place, accumulation, features, rows, room)
        )
        if 0 < fitting < len(rows):
            accumulation.use_micro_batch(fitting)
        elif fitting < 1:
            accumulation.use_micro_batch(1)
            accumulation.use_checkpointing()

    def _by_trying(self, place: Path, accumulation: Accumulation, features: Features, rows: Indices) -> int:
        """The largest of `len(rows)`, half of it, and so on, with which a step succeeds; 0 where none does."""
        known = _read(place)
        if known and (len(rows) <= known["fits"] or known["failed"]):
            return int(known["fits"])
        # AdamW's moments come with the first update: their place is kept free.
        moments = torch.empty(2 * _trainable(accumulation.model), device=accumulation.execution.device)
        size = len(rows)
        while size > 0 and not _step_fits(accumulation, features, rows[:size]):
            size //= 2
        del moments
        _write(place, {"fits": size, "failed": size < len(rows)})
        return size

    def _by_extrapolating(
        self, place: Path, accumulation: Accumulation, features: Features, rows: Indices, room: float
    ) -> int:
        """How many examples' activations fit into `room` bytes; 0 where not even one's do."""
        known = _read(place)
        if not known:
            sizes = [size for size in MEASURED if size <= len(rows)]
            peaks: list[float] = []
            for size in sizes:
                peak = _allocated(accumulation, features, rows[:size])
                if peak is None:
                    return size // 2
                peaks.append(peak)
            # Of few examples the weights' gradient can be most of the peak: the last two tell what one more takes.
            row = (peaks[-1] - peaks[-2]) / (sizes[-1] - sizes[-2]) if len(sizes) > 1 else peaks[0]
            known = {"base_bytes": max(0.0, peaks[-1] - sizes[-1] * row), "row_bytes": row}
            if len(sizes) == len(MEASURED):
                _write(place, known)
        return int((room - known["base_bytes"]) // known["row_bytes"])


def activation_bound(model: nn.Module, layers: int, rows: int, length: int) -> float:
    """Bytes that `rows` examples of `length` tokens keep for the backward pass, at most; inf where it cannot be told.

    A matrix keeps its input and hands on its output: for BERT 18 numbers a layer, token and hidden unit, where all that
    a layer keeps is 17 (34 bytes in 16 bit) and 2.5 for each pair of tokens and head (Korthikanti et al., 2022). Twice
    the matrices' sides and 12 a pair stay above it also where attention is more than one product (DeBERTa).
    """
    config: Any = getattr(model, "config", None)
    heads = getattr(config, "num_attention_heads", None)
    deep = getattr(config, "num_hidden_layers", None)
    if not isinstance(heads, int) or not isinstance(deep, int):
        return float("inf")
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    sides = sum(sum(p.shape[:2]) for p in model.parameters() if p.ndim > 1 and id(p) not in tables)
    of_words: Any = getattr(model, "get_output_embeddings", lambda: None)
    words = of_words()
    if words is not None:  # a table or not: of a score for each word the loss makes a probability and a gradient
        sides += 2 * words.weight.shape[0]
    again = max(1, deep // layers)  # how often a shared layer is used (ALBERT)
    # A decoder's layers attend to what was written and to what was read.
    attending = layers + 2 * (
        getattr(config, "decoder_layers", None) or getattr(config, "num_decoder_layers", None) or 0
    )
    return 4.0 * rows * length * again * (2 * sides + 12 * heads * length * attending)


def free_bytes(workers: int) -> float:
    """Bytes that this process may still take, as one of `workers` that share the memory."""
    return ((1 - MARGIN) * memory_limit() - PARENT_BYTES) / workers - _resident_bytes()


def has_room(model: nn.Module, copies: int, execution: Execution) -> bool:
    """Whether so many runs more of a model like this could wait in memory, in half of what is free."""
    size = 4 * sum(p.numel() for p in model.parameters()) + 4 * (STATES - 1) * _trainable(model)
    if execution.device.startswith("cuda"):
        free = torch.cuda.mem_get_info(execution.device)[0] / execution.workers
    else:
        free = free_bytes(execution.workers)
    return copies * size <= free / 2


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes of memory: the machine's, or the lowest limit that a control group (v1 or v2) sets this process."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else []:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            base, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the group's path is often that of the host, and its limit stands at the root.
        for place in {base, *((base / group.lstrip("/")).parents), base / group.lstrip("/")}:
            file = place / name
            text = file.read_text().strip() if place.is_relative_to(base) and file.is_file() else ""
            if text.isdigit():
                limits.append(int(text))
    return min(limits)


def _resident_bytes() -> int:
    """Memory of this process alone: what it maps from files can be read again."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    _, resident, shared, *_ = map(int, statm.read_text().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _step_fits(accumulation: Accumulation, features: Features, rows: Indices) -> bool:
    """Whether a forward and backward pass over `rows` succeeds; leaves no gradient, and the random state as it was."""
    device = accumulation.execution.device
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        try:
            accumulation.attempt(features, rows)
        except MicroBatchTooLarge:
            return False
        accumulation.model.zero_grad(set_to_none=True)
    return True


def _allocated(accumulation: Accumulation, features: Features, rows: Indices) -> float | None:
    """The most bytes that a step over `rows` holds at one moment; None where it fails."""
    fits: list[bool] = []
    peak = allocated_bytes(lambda: fits.append(_step_fits(accumulation, features, rows)))
    return peak if fits == [True] else None


def allocated_bytes(run: Callable[[], None]) -> float:
    """The most bytes of a CPU's memory that `run` holds at one moment.

    The sum of what torch's allocator hands out and takes back. Resident memory would not do: a warm process keeps what
    earlier trials freed, and serves the next step from it.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else the profiler writes that it started and stopped to stderr
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = profile.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    return float(np.cumsum([size for _, size in sorted(changes)]).max(initial=0))


def _read(place: Path) -> dict[str, float]:
    """What was remembered; empty where nothing was, or a file is torn."""
    try:
        found: dict[str, float] = json.loads(place.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _write(place: Path, found: dict[str, float]) -> None:
    """Remember for the processes to come; each may measure, and they find the same."""
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = place.with_name(f"{place.name}.{os.getpid()}")
    scratch.write_text(json.dumps(found))
    scratch.rename(place)
