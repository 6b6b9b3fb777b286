"""Tokenised once: every split is encoded one time per (data, tokenizer, max_length), for all trials and workers.

The result is Arrow on disk, memory-mapped by every process of the machine; one process makes it while the others wait.
"""

import functools
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from hpo.tasks.task import Task, TaskData
from hpo.training.batching import Features

FORMAT = 1  # raise it when what `encode` writes changes


class FeatureStore:
    """The encoded splits of one study's data, kept in `folder` and in this process."""

    def __init__(self, folder: Path, task: Task, data: TaskData) -> None:
        self._folder = folder
        self._task = task
        self._data = data
        self._open: dict[tuple[str, str, int], Features] = {}

    def get(self, split: str, tokenizer: Any, max_length: int) -> Features:
        """The features of `split` (train, validation or test). Raises `OSError` when the disk is full."""
        identity = _tokenizer_identity(tokenizer)
        key = (split, identity, max_length)
        if key not in self._open:
            self._open[key] = self._load_or_make(split, identity, tokenizer, max_length)
        return self._open[key]

    def _load_or_make(self, split: str, identity: str, tokenizer: Any, max_length: int) -> Features:
        import filelock
        from datasets import Dataset, disable_progress_bars

        disable_progress_bars()
        parts = [FORMAT, self._task.name, self._data.fingerprint, split, identity, max_length]
        folder = self._folder / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
        if not folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(f"{folder}.lock"):
                if not folder.is_dir():
                    scratch = folder.with_name(f"{folder.name}.{os.getpid()}")
                    shutil.rmtree(scratch, ignore_errors=True)
                    encoded = self._task.encode(getattr(self._data, split), tokenizer, max_length)
                    encoded.save_to_disk(str(scratch))
                    scratch.rename(folder)  # last: a folder of this name is whole
        encoded = Dataset.load_from_disk(str(folder))
        return Features.from_dataset(encoded, tokenizer.pad_token_id, folder.name, getattr(self._data, split))


# Once a tokenizer, not once a trial: it takes 0.1 s with a vocabulary of 30,000.
@functools.lru_cache(maxsize=32)
def _tokenizer_identity(tokenizer: Any) -> str:
    """A digest of what a tokenizer does: its whole definition where it is a fast one, else class and vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        definition = json.dumps(sorted(tokenizer.get_vocab().items()))
    else:
        # How it truncates and pads is what its last call asked for, no part of what it is.
        parts = json.loads(backend.to_str())
        definition = json.dumps({name: part for name, part in parts.items() if name not in ("truncation", "padding")})
    plain = f"{type(tokenizer).__name__} {tokenizer.padding_side} {tokenizer.truncation_side} {definition}"
    return hashlib.sha256(plain.encode()).hexdigest()
