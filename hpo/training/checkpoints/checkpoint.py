"""A trial's state on disk: written aside, then renamed; verified on reading; safetensors and JSON only.

folder/checkpoint-2-120/    state.safetensors   trainable weights, optimizer state, random state
                            state.json          step, schedule, sums; sizes and a digest of the other (the manifest)

The first number is the attempt that wrote it (how often the trial was handed out), the second the step. A process that
was frozen while another took its trial over may still write: never in the other's place, which is read first.
"""

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

PREFIX = "checkpoint-"
FOLD = "fold-"


@dataclass
class Progress:
    """Where a run stands: all that the loop needs besides tensors. Mutable: the loop counts in it."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # the epoch in hand, from 0
    batch: int = 0  # batches of that epoch done
    rung: int = 0  # rungs reported
    loss_sum: float = 0.0  # training loss summed over examples since the last rung
    loss_count: int = 0
    decay: float = 1.0  # what weight decay alone has made of a decayed weight of 1
    reports: list[dict[str, Any]] = field(default_factory=list)  # of the rungs so far
    seconds_train: float = 0.0
    seconds_evaluate: float = 0.0
    seconds_checkpoint: float = 0.0


class CheckpointTimer:
    """Says when to save next: the cheaper a save, the sooner, so that a killed worker's trial has little to do again.

    Saves take a hundredth of the time at most, as the last one's seconds foretell (before the first one: the bytes of
    weights and two moments, to a disk of 400 MB/s), and come 5 to `longest_seconds` apart. A trial whose worker was
    lost (`attempt` above 1) may spend a tenth, 3 s apart: what is killed again has got further each time, and is not
    taken for the one that kills. With a fixed minute, a small model's trial of 40 s was failed by three kills in a row.
    """

    def __init__(self, longest_seconds: float, trainable: list[nn.Parameter], attempt: int = 1) -> None:
        self._longest_seconds = longest_seconds
        self._shortest_seconds, self._costs = (5.0, 100) if attempt == 1 else (3.0, 10)
        self._cost_seconds = 3 * sum(p.numel() * p.element_size() for p in trainable) / 400e6
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """From one save to the next."""
        return min(self._longest_seconds, max(self._shortest_seconds, self._costs * self._cost_seconds))

    def is_due(self) -> bool:
        return time.monotonic() - self._since >= self.seconds

    def saved(self, cost_seconds: float) -> None:
        """Begin again after a save that took so long."""
        self._cost_seconds, self._since = cost_seconds, time.monotonic()


def save_checkpoint(
    folder: Path, attempt: int, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any, progress: Progress
) -> Path:
    """Write the state after `progress.step` steps, then remove what is older by attempt and step. Raises `OSError`.

    Whenever the process is killed, one sound checkpoint is there, if one was before.
    """
    target = folder / f"{PREFIX}{attempt}-{progress.step}"
    scratch = folder / f".{target.name}.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    tensors = {f"model/{name}": p.detach().contiguous() for name, p in _trained(model).items()}
    states = optimizer.state_dict()
    for index, state in states["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value).contiguous() for key, value in state.items()}
    tensors |= {f"random/{device}": state for device, state in random_state().items()}
    try:
        _write(scratch, tensors, progress, states["param_groups"], scheduler)
    except OSError:
        shutil.rmtree(scratch, ignore_errors=True)  # a full disk is no fuller for it
        raise
    if _read(target) is not None:
        shutil.rmtree(scratch)  # written before at this very step, it holds the same state
    else:
        shutil.rmtree(target, ignore_errors=True)  # not there, or torn
        scratch.rename(target)
        _flush(folder)
    for old in _checkpoints(folder):
        if _age(old) < _age(target):
            shutil.rmtree(old, ignore_errors=True)
    return target


def _write(
    scratch: Path, tensors: dict[str, torch.Tensor], progress: Progress, groups: list[Any], scheduler: Any
) -> None:
    """The two files, on the disk when this returns; the one with the digest last."""
    try:
        save_file(tensors, scratch / "state.safetensors")
    except SafetensorError as error:
        raise OSError(f"cannot write {scratch}: {error}") from error
    manifest = {
        "progress": vars(progress),
        "groups": groups,
        "scheduler": {k: v for k, v in scheduler.state_dict().items() if k != "lr_lambdas"},
        "digest": _digest(scratch / "state.safetensors"),
    }
    (scratch / "state.json").write_text(json.dumps(manifest))
    for path in (*scratch.iterdir(), scratch):
        _flush(path)


def _flush(path: Path) -> None:
    """Have the disk hold a file's content, or a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any
) -> Progress | None:
    """Put the newest sound checkpoint of `folder` into model, optimizer and schedule; None where there is none."""
    for path in _checkpoints(folder):
        read = _read(path)
        if read is None:
            continue
        manifest, tensors = read
        own = _trained(model)
        if {f"model/{name}": p.shape for name, p in own.items()} != {
            name: tensor.shape for name, tensor in tensors.items() if name.startswith("model/")
        }:
            continue  # of another plan
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(tensors[f"model/{name}"])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                _, index, name = key.split("/")
                state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": manifest["groups"]})
        scheduler.load_state_dict({**manifest["scheduler"], "lr_lambdas": [None] * len(manifest["groups"])})
        set_random_state({key.removeprefix("random/"): t for key, t in tensors.items() if key.startswith("random/")})
        return Progress(**manifest["progress"])
    return None


def saved_progress(folder: Path) -> Progress | None:
    """How far the newest sound checkpoint of `folder` is; None where there is none."""
    path = latest_checkpoint(folder)
    return None if path is None else Progress(**json.loads((path / "state.json").read_text())["progress"])


def random_state() -> dict[str, torch.Tensor]:
    """The state of torch's random numbers, by kind of device."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    """Go on with the random numbers where `random_state` was called."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def fold_folder(folder: Path, fold: int) -> Path:
    """Where the checkpoints of one fold of a trial with k-fold validation are, in the trial's `folder`."""
    return folder / f"{FOLD}{fold}"


def remove_checkpoints(folder: Path) -> None:
    """Delete a finished trial's checkpoints, and its folder when nothing else is in it."""
    for path in [*folder.glob(f"{PREFIX}*"), *folder.glob(f".{PREFIX}*"), *folder.glob(f"{FOLD}*")]:
        shutil.rmtree(path, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _trained(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes: trainable parameters, and the buffers of modules in train mode (BatchNorm)."""
    changed: dict[str, torch.Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for prefix, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            changed |= {f"{prefix}.{name}": buffer for name, buffer in module.named_buffers(recurse=False)}
    return changed


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first."""
    return sorted(folder.glob(f"{PREFIX}*"), key=_age, reverse=True)


def _age(path: Path) -> tuple[int, int]:
    """Attempt and step of a checkpoint, which order them."""
    attempt, step = path.name.removeprefix(PREFIX).split("-")
    return int(attempt), int(step)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest sound checkpoint of a folder; None where there is none."""
    return next((path for path in _checkpoints(folder) if is_valid(path)), None)


def is_valid(path: Path) -> bool:
    """Whether a checkpoint is whole."""
    return _read(path) is not None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """A checkpoint's manifest and tensors, or None for a torn one: the one before it serves then."""
    try:
        manifest = json.loads((path / "state.json").read_text())
        if manifest["digest"] != _digest(path / "state.safetensors"):
            return None
        return manifest, load_file(path / "state.safetensors")
    except (OSError, ValueError, KeyError, SafetensorError):
        return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
