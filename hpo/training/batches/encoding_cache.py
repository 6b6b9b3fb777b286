"""Encoded once: every split is encoded one time per (data, processor, max_length), for all trials and workers.

The result is Arrow on disk (pixels and sound beside it, `tensor_files`), memory-mapped by every process of the machine;
one process makes it while the others wait.
"""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpo.core.cache import CACHE_BYTES, evict, touch
from hpo.data.splits.create import take
from hpo.tasks.base import Task
from hpo.tasks.task_data import TaskData
from hpo.training.batches.features import Features
from hpo.training.batches.tensor_files import TensorFiles, open_tensors

FORMAT = 2  # raise it when what `encode` writes changes


class EncodingCache:
    """The encoded splits of one study's data, kept in `folder` and in this process."""

    def __init__(self, folder: Path, task: Task, data: TaskData, budget_bytes: int = CACHE_BYTES) -> None:
        self._folder = folder
        self._budget = budget_bytes
        self._task = task
        self._data = data
        self._open: dict[tuple[object, ...], Features] = {}

    def get(self, split: str, processor: Any, max_length: int, places: Sequence[int] | None = None) -> Features:
        """The features of `split` (train, validation or test), of the rows at `places` if they are given.

        Raises `OSError` when the disk is full.
        """
        part = None if places is None else hashlib.sha256(json.dumps(places).encode()).hexdigest()
        identity = _identity(processor)
        key = (split, identity, max_length, part)
        if key not in self._open:
            rows = getattr(self._data, split)
            chosen = rows if places is None else take(rows, places)
            settings = {name: str(value) for name, value in vars(self._task).items()}
            parts = [FORMAT, self._task.name, settings, self._data.fingerprint, split, identity, max_length]
            parts += [given for given in (part, self._task.source_digest) if given]
            self._open[key] = self._load_or_make(parts, chosen, processor, max_length)
        return self._open[key]

    def _load_or_make(self, parts: list[Any], rows: Any, processor: Any, max_length: int) -> Features:
        import filelock
        from datasets import Dataset, disable_progress_bars

        disable_progress_bars()
        folder = self._folder / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
        self._folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                scratch = folder.with_name(f"{folder.name}.{os.getpid()}")
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir()
                self._make(rows, processor, max_length, scratch)
                # Nothing of the last day: workers that share a study come to a split one after the other.
                evict(self._folder, 0, self._budget, unused_seconds=86400.0)
                scratch.rename(folder)  # last: a folder of this name is whole
            touch(folder)
        encoded, tensors = Dataset.load_from_disk(str(folder)), open_tensors(folder)
        found = Features.from_dataset(encoded, getattr(processor, "pad_token_id", 0), folder.name, rows, tensors)
        finish = functools.partial(self._task.prepare_batch, processor=processor)
        return replace(found, finish=finish, processor=processor)

    def _make(self, rows: Any, processor: Any, max_length: int, folder: Path) -> None:
        """Encode `rows` into `folder`, so many at once that pixels and sound need little memory."""
        from datasets import concatenate_datasets

        tensors = TensorFiles(folder)
        at_once = self._task.encode_batch_size or len(rows)
        encoded = []
        for start in range(0, len(rows), at_once):
            part = rows if at_once >= len(rows) else take(rows, range(start, min(start + at_once, len(rows))))
            encoded.append(tensors.take_from(self._task.encode(part, processor, max_length)))
        concatenate_datasets(encoded).save_to_disk(str(folder))
        tensors.finish()


# Once a processor, not once a trial: it takes 0.1 s with a vocabulary of 30,000.
@functools.lru_cache(maxsize=32)
def _identity(processor: Any) -> str:
    """A digest of what a processor does: its settings, and a tokenizer's whole definition."""
    plain = json.dumps(_definition(processor), sort_keys=True, default=str)
    return hashlib.sha256(plain.encode()).hexdigest()


def _definition(processor: Any) -> Any:
    name = type(processor).__name__
    if hasattr(processor, "get_attributes"):  # several in one: a feature extractor and a tokenizer
        return [name, *(_definition(getattr(processor, part)) for part in processor.get_attributes())]
    if not hasattr(processor, "get_vocab"):
        return [name, processor.to_dict()]
    backend = getattr(processor, "backend_tokenizer", None)
    if backend is None:
        definition: Any = sorted(processor.get_vocab().items())
    else:
        # How it truncates and pads is what its last call asked for, no part of what it is.
        parts = json.loads(backend.to_str())
        definition = {key: part for key, part in parts.items() if key not in ("truncation", "padding")}
    texts = [processor.chat_template, processor.init_kwargs.get("source_prefix")]
    return [name, processor.padding_side, processor.truncation_side, texts, definition]
