"""Finds the largest micro-batch that fits in memory before the first step, once a machine.

folder/KEY.json    the measurement for one model, length, count of frozen layers, adapters, kind of device, dtype

On a GPU steps on the longest inputs are tried. A CPU raises no error (a process that takes too much is killed), so that
the allocations of steps of 1, 2 and 4 inputs are extrapolated to the memory that the machine or container has left.
Most models need far less; that follows from their shape, without a measurement.
"""

import hashlib
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hpo.config.trial_params import TrialParams
from hpo.training.batches.features import Features, Indices
from hpo.training.execution import Execution
from hpo.training.memory.accumulation import Accumulation, MicroBatchTooLarge
from hpo.training.models.candidate import Candidate
from hpo.training.models.footprint import allocated_bytes

FORMAT = 1  # increase it when what is measured changes
MEASURED = (1, 2, 4)  # inputs
MARGIN = 0.15  # share of the limit to leave free: allocators round up and cache freed memory
PARENT_BYTES = 600 * 2**20  # the study's own process beside its workers: imports, data, checked models
STATES = 3  # float32 numbers beside each trained weight: its gradient and AdamW's two moments


class MicroBatchCache:
    """The measurements of one machine, in `folder`."""

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
        """Set the micro-batch of `accumulation` to the most inputs that fit, measured on the longest of `features`.

        A micro-batch that its execution has decided is kept. The random state is the same with and without measuring.
        """
        execution = accumulation.execution
        if execution.micro_batch is not None or execution.checkpoint_activations:
            return
        longest = features.longest
        rows = np.argsort(features.lengths, kind="stable")[::-1][: params.batch_size]
        path = self._path(execution, candidate, longest, frozen_layers, params)
        if execution.device.startswith("cuda"):
            fitting = self._try_halves(path, accumulation, features, rows)
        else:
            assert execution.training_tokens is not None
            rows = rows[: max(1, execution.training_tokens // longest)]
            room = free_bytes(execution.workers) - 4 * STATES * _trainable(accumulation.model)
            bound = activation_bound(accumulation.model, candidate.stack.count, len(rows), longest)
            # The bound does not cover layers before the stack (convolutions) and DoRA's full matrices in each step.
            if bound <= room and "input_ids" in features.columns and not params.use_dora:
                return
            fitting = self._extrapolate(path, accumulation, features, rows, room)
        if 0 < fitting < len(rows):
            accumulation.use_micro_batch(fitting)
        elif fitting < 1:
            accumulation.use_micro_batch(1)
            accumulation.use_checkpointing()

    def _path(
        self, execution: Execution, candidate: Candidate, longest: int, frozen_layers: int, params: TrialParams
    ) -> Path:
        """Return the file of a measurement."""
        kind = torch.cuda.get_device_name(execution.device) if execution.device.startswith("cuda") else "cpu"
        parts = [FORMAT, candidate.digest, longest, frozen_layers, kind, execution.dtype, execution.workers]
        if params.peft != "none":
            parts += [params.peft, params.lora_r, params.lora_targets, params.use_dora, params.lora_dropout > 0]
            parts += ["4bit"] if params.is_quantized else []
        return self._folder / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]}.json"

    def _try_halves(self, path: Path, accumulation: Accumulation, features: Features, rows: Indices) -> int:
        """Return the first of `len(rows)`, half of it, and so on, with which a step succeeds; 0 where none does."""
        known = _read(path)
        if known and (len(rows) <= known["fits"] or known["failed"]):
            return int(known["fits"])
        # AdamW allocates its moments in the first update: reserve their memory.
        moments = torch.empty(2 * _trainable(accumulation.model), device=accumulation.execution.device)
        size = len(rows)
        while size > 0 and not _step_fits(accumulation, features, rows[:size]):
            size //= 2
        del moments
        _write(path, {"fits": size, "failed": size < len(rows)})
        return size

    def _extrapolate(
        self, path: Path, accumulation: Accumulation, features: Features, rows: Indices, room: float
    ) -> int:
        """Return how many inputs' activations fit in `room` bytes; less than 1 where not even one's do."""
        known = _read(path)
        if not known:
            sizes = [size for size in MEASURED if size <= len(rows)]
            peaks: list[float] = []
            for size in sizes:
                peak = _allocated(accumulation, features, rows[:size])
                if peak is None:
                    return size // 2
                peaks.append(peak)
            # With few inputs the weights' gradient can be most of the peak: use the difference of the last two sizes.
            row = (peaks[-1] - peaks[-2]) / (sizes[-1] - sizes[-2]) if len(sizes) > 1 else peaks[0]
            known = {"base_bytes": max(0.0, peaks[-1] - sizes[-1] * row), "row_bytes": row}
            if len(sizes) == len(MEASURED):
                _write(path, known)
        return int((room - known["base_bytes"]) // known["row_bytes"])


def activation_bound(model: nn.Module, layers: int, rows: int, length: int) -> float:
    """Return an upper bound of the bytes that `rows` inputs of `length` tokens store for the backward pass.

    inf where the model's config has no number of heads and layers. A matrix stores its input and its output: for BERT
    18 numbers a layer, token and hidden unit, where a layer stores 17 in all (34 bytes in 16 bits) and 2.5 for each
    pair of tokens and head (Korthikanti et al., 2022). Twice the matrices' sides and 12 a pair are above it even where
    attention has more than one product (DeBERTa).
    """
    config: Any = getattr(model, "config", None)
    heads = getattr(config, "num_attention_heads", None)
    depth = getattr(config, "num_hidden_layers", None)
    if not isinstance(heads, int) or not isinstance(depth, int):
        return float("inf")
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    sides = sum(sum(p.shape[:2]) for p in model.parameters() if p.ndim > 1 and id(p) not in tables)
    get_output: Any = getattr(model, "get_output_embeddings", lambda: None)
    output = get_output()
    if output is not None:  # tied or not, the loss stores a probability and a gradient for each token's logit
        sides += 2 * output.weight.shape[0]
    repeats = max(1, depth // layers)  # how often a shared layer is applied (ALBERT)
    # A decoder's layers attend to their own and to the encoder's tokens.
    attending = layers + 2 * (
        getattr(config, "decoder_layers", None) or getattr(config, "num_decoder_layers", None) or 0
    )
    return 4.0 * rows * length * repeats * (2 * sides + 12 * heads * length * attending)


def free_bytes(workers: int) -> float:
    """Return the bytes that this process can still allocate, as one of `workers` that share the memory."""
    return ((1 - MARGIN) * memory_limit() - PARENT_BYTES) / workers - _resident_bytes()


def has_room(model: nn.Module, copies: int, execution: Execution) -> bool:
    """Return whether `copies` runs of such a model fit in half of the free memory."""
    size = 4 * sum(p.numel() for p in model.parameters()) + 4 * (STATES - 1) * _trainable(model)
    if execution.device.startswith("cuda"):
        free = torch.cuda.mem_get_info(execution.device)[0] / execution.workers
    else:
        free = free_bytes(execution.workers)
    return copies * size <= free / 2


def memory_limit(root: Path = Path("/")) -> int:
    """Return the bytes of memory: the machine's, or this process's lowest control-group limit (v1 or v2)."""
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
        # In a container the group's path is often that of the host, and its limit is at the root.
        for folder in {base, *((base / group.lstrip("/")).parents), base / group.lstrip("/")}:
            file = folder / name
            text = file.read_text().strip() if folder.is_relative_to(base) and file.is_file() else ""
            if text.isdigit():
                limits.append(int(text))
    return min(limits)


def _resident_bytes() -> int:
    """Return the private memory of this process: file-backed pages can be evicted."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    _, resident, shared, *_ = map(int, statm.read_text().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _step_fits(accumulation: Accumulation, features: Features, rows: Indices) -> bool:
    """Return whether a forward and backward pass over `rows` succeeds. Leaves gradients and random state unchanged."""
    device = accumulation.execution.device
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        try:
            accumulation.attempt(features, rows)
        except MicroBatchTooLarge:
            return False
        accumulation.model.zero_grad(set_to_none=True)
    return True


def _allocated(accumulation: Accumulation, features: Features, rows: Indices) -> float | None:
    """Return the peak of the bytes that a step over `rows` allocates; None where it fails."""
    fits: list[bool] = []
    peak = allocated_bytes(lambda: fits.append(_step_fits(accumulation, features, rows)))
    return peak if fits == [True] else None


def _read(path: Path) -> dict[str, float]:
    """Return a stored measurement; empty where there is none or the file is torn."""
    try:
        found: dict[str, float] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _write(path: Path, found: dict[str, float]) -> None:
    """Store a measurement. Several processes may measure and write the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(found))
    scratch.rename(path)
