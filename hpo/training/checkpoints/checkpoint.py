"""A trial's checkpoints on disk: written to a scratch folder, then renamed; verified when read; no pickle.

folder/checkpoint-2-120/    state.safetensors   trainable weights, optimizer state, random state
                            state.json          progress, schedule and a digest of the other file (the manifest)

The first number is the attempt that wrote it, the second the step. A process that was suspended while another reclaimed
its trial may still write a checkpoint, but under its own, lower attempt: the later attempt's checkpoint is read first.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

PREFIX = "checkpoint-"
FOLD = "fold-"


@dataclass
class Progress:
    """The state besides tensors that a run resumes from. The training loop updates it in place."""

    step: int = 0  # optimizer steps completed
    epoch: int = 0  # the current epoch, from 0
    batch: int = 0  # batches of that epoch completed
    rung: int = 0  # rungs reported
    loss_sum: float = 0.0  # training loss summed over inputs since the last rung
    loss_count: int = 0
    decay: float = 1.0  # the product of all steps' weight-decay factors
    best_decay: float = 1.0  # the same at the best rung, where a patience is set
    reports: list[dict[str, Any]] = field(default_factory=list)  # of the rungs so far, as dictionaries
    seconds_train: float = 0.0
    seconds_evaluate: float = 0.0
    seconds_checkpoint: float = 0.0


class CheckpointTimer:
    """Decides when the next checkpoint is due: the cheaper one is, the sooner.

    Checkpoints take at most a hundredth of the time, predicted by the last one's duration (the first one's: by the
    bytes of weights and two moments, on a disk of 400 MB/s), and are 5 to `longest_seconds` apart. A trial whose worker
    was lost (`attempt` above 1) may spend a tenth, 3 s apart, so that it progresses even if it is killed again. With
    checkpoints every minute, a small model's trial of 40 s failed after three kills in a row.
    """

    def __init__(self, longest_seconds: float, trainable: list[nn.Parameter], attempt: int = 1) -> None:
        self._longest_seconds = longest_seconds
        self._shortest_seconds, self._cost_factor = (5.0, 100) if attempt == 1 else (3.0, 10)
        self._cost_seconds = 3 * sum(p.numel() * p.element_size() for p in trainable) / 400e6
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """The time from one checkpoint to the next."""
        return min(self._longest_seconds, max(self._shortest_seconds, self._cost_factor * self._cost_seconds))

    def is_due(self) -> bool:
        """Return whether the next checkpoint is due."""
        return time.monotonic() - self._since >= self.seconds

    def saved(self, cost_seconds: float) -> None:
        """Restart after a checkpoint that took `cost_seconds`."""
        self._cost_seconds, self._since = cost_seconds, time.monotonic()


def save_checkpoint(
    folder: Path,
    study: str,
    attempt: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    progress: Progress,
    best: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> Path:
    """Write the state after `progress.step` steps, then remove checkpoints of earlier attempts and steps.

    `study` is the identity of the study, which every reader checks. `best` holds the trained tensors of the best rung,
    where they are to be restored at the end. Returns the checkpoint's path. Raises `OSError`. The process may be killed
    at any time: where there was a valid checkpoint before, there is one after.
    """
    target = folder / f"{PREFIX}{attempt}-{progress.step}"
    scratch = folder / f".{target.name}.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    tensors = {f"model/{name}": p.detach().contiguous() for name, p in trained_tensors(model).items()}
    states = optimizer.state_dict()
    for index, state in states["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value).contiguous() for key, value in state.items()}
    tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
    tensors |= {f"random/{device}": state for device, state in random_state().items()}
    try:
        _write(scratch, study, tensors, progress, states["param_groups"], scheduler)
    except OSError:
        shutil.rmtree(scratch, ignore_errors=True)  # leaves nothing on a full disk
        raise
    if _read(target, study) is not None:
        shutil.rmtree(scratch)  # a valid checkpoint of this step exists, with the same state
    else:
        shutil.rmtree(target, ignore_errors=True)  # missing or torn
        scratch.rename(target)
        _fsync(folder)
    for old in _checkpoints(folder):
        if _age(old) < _age(target):
            shutil.rmtree(old, ignore_errors=True)
    return target


def _write(
    scratch: Path, study: str, tensors: dict[str, torch.Tensor], progress: Progress, groups: list[Any], scheduler: Any
) -> None:
    """Write and fsync both files; the one with the digest last."""
    try:
        save_file(tensors, scratch / "state.safetensors")
    except SafetensorError as error:
        raise OSError(f"cannot write {scratch}: {error}") from error
    manifest = {
        "study": study,
        "progress": vars(progress),
        "groups": groups,
        "scheduler": {k: v for k, v in scheduler.state_dict().items() if k != "lr_lambdas"},
        "digest": _digest(scratch / "state.safetensors"),
    }
    (scratch / "state.json").write_text(json.dumps(manifest))
    for path in (*scratch.iterdir(), scratch):
        _fsync(path)


def _fsync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_checkpoint(
    folder: Path,
    study: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    best: dict[str, torch.Tensor] | None = None,
) -> Progress | None:
    """Load the latest valid checkpoint of `folder` into model, optimizer, schedule, random state and `best`, in place.

    Returns its progress; None where there is none that matches the model's trained tensors.
    """
    for path in _checkpoints(folder):
        read = _read(path, study)
        if read is None:
            continue
        manifest, tensors = read
        if not _load_weights(model, tensors):
            continue  # of another plan
        optimizer.load_state_dict({"state": _optimizer_state(tensors), "param_groups": manifest["groups"]})
        scheduler.load_state_dict({**manifest["scheduler"], "lr_lambdas": [None] * len(manifest["groups"])})
        set_random_state({key.removeprefix("random/"): t for key, t in tensors.items() if key.startswith("random/")})
        if best is not None:
            best.update({key.removeprefix("best/"): t for key, t in tensors.items() if key.startswith("best/")})
        return Progress(**manifest["progress"])
    return None


def _load_weights(model: nn.Module, tensors: dict[str, torch.Tensor]) -> bool:
    """Copy a checkpoint's weights into the model; return False where their names or shapes differ."""
    trained = trained_tensors(model)
    if {f"model/{name}": p.shape for name, p in trained.items()} != {
        name: tensor.shape for name, tensor in tensors.items() if name.startswith("model/")
    }:
        return False
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[f"model/{name}"])
    return True


def _optimizer_state(tensors: dict[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    """Return a checkpoint's optimizer state: name → tensor for each parameter's index."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
    return state


def saved_progress(folder: Path, study: str) -> Progress | None:
    """Return the progress of the study's latest valid checkpoint in `folder`; None where there is none."""
    path = latest_checkpoint(folder, study)
    return None if path is None else Progress(**json.loads((path / "state.json").read_text())["progress"])


def random_state() -> dict[str, torch.Tensor]:
    """Return the state of torch's random generators by kind of device."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    """Restore the generators to a state returned by `random_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def fold_folder(folder: Path, fold: int) -> Path:
    """Return the folder of one fold's checkpoints within the trial's `folder`."""
    return folder / f"{FOLD}{fold}"


def remove_checkpoints(folder: Path) -> None:
    """Delete a finished trial's checkpoints, and its folder if that is empty then."""
    for path in [*folder.glob(f"{PREFIX}*"), *folder.glob(f".{PREFIX}*"), *folder.glob(f"{FOLD}*")]:
        shutil.rmtree(path, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors that training changes: trainable parameters, and buffers of BatchNorm in train mode."""
    changed: dict[str, torch.Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for prefix, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            changed |= {f"{prefix}.{name}": buffer for name, buffer in module.named_buffers(recurse=False)}
    return changed


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, latest first. Other files, such as a user's backup, are ignored."""
    found = [path for path in folder.glob(f"{PREFIX}*") if is_checkpoint_name(path.name)]
    return sorted(found, key=_age, reverse=True)


def is_checkpoint_name(name: str) -> bool:
    """Return whether `name` is that of a checkpoint: `checkpoint-ATTEMPT-STEP`."""
    return re.fullmatch(rf"{PREFIX}[0-9]+-[0-9]+", name) is not None


def _age(path: Path) -> tuple[int, int]:
    """Return a checkpoint's sort key: attempt and step."""
    attempt, step = path.name.removeprefix(PREFIX).split("-")
    return int(attempt), int(step)


def latest_checkpoint(folder: Path, study: str) -> Path | None:
    """Return the study's latest valid checkpoint in a folder; None where there is none."""
    return next((path for path in _checkpoints(folder) if is_valid(path, study)), None)


def is_valid(path: Path, study: str) -> bool:
    """Return whether a checkpoint is of the study with this identity, complete, and matches its digest."""
    return _read(path, study) is not None


def _read(path: Path, study: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """Return a checkpoint's manifest and tensors; None where it is torn or of another study.

    The caller then tries the one before.
    """
    try:
        manifest = json.loads((path / "state.json").read_text())
        if manifest["study"] != study or manifest["digest"] != _digest(path / "state.safetensors"):
            return None
        return manifest, load_file(path / "state.safetensors")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
