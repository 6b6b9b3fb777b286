"""Encodes each split once per (data, processor, max_length), for all trials and workers of a machine.

The result is Arrow on disk (pixels and audio in files beside it, `tensor_files`), memory-mapped by every process. One
process encodes while the others wait.
"""

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpo.core.cache import CACHE_BYTES, evict, scratch_folder, touch
from hpo.data.splits.create import take
from hpo.tasks.base import Task
from hpo.tasks.task_data import TaskData
from hpo.training.batches.features import Features
from hpo.training.batches.tensor_files import TensorFiles, open_tensors

FORMAT = 3  # increase it when the output of `encode` changes


class EncodingCache:
    """The encoded splits of one study's data, stored in `folder` and kept open in this process."""

    def __init__(self, folder: Path, task: Task, data: TaskData, budget_bytes: int = CACHE_BYTES) -> None:
        self._folder = folder
        self._budget = budget_bytes
        self._task = task
        self._data = data
        self._open: dict[tuple[object, ...], Features] = {}

    def get(self, split: str, processor: Any, max_length: int, indices: Sequence[int] | None = None) -> Features:
        """Return the features of `split` (train, validation or test), or of its rows at `indices`.

        Raises `OSError` when the disk is full.
        """
        part = None if indices is None else hashlib.sha256(json.dumps(indices).encode()).hexdigest()
        identity = _identity(processor)
        key = (split, identity, max_length, part)
        if key not in self._open:
            rows = getattr(self._data, split)
            chosen = rows if indices is None else take(rows, indices)
            settings = {name: str(value) for name, value in vars(self._task).items()}
            parts = [FORMAT, self._task.name, settings, self._data.fingerprint, split, identity, max_length]
            parts += [given for given in (part, self._task.source_digest) if given]
            self._open[key] = self._load_or_encode(parts, chosen, processor, max_length)
        return self._open[key]

    def _load_or_encode(self, parts: list[Any], rows: Any, processor: Any, max_length: int) -> Features:
        import filelock
        from datasets import Dataset, disable_progress_bars

        disable_progress_bars()
        folder = self._folder / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
        self._folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                with scratch_folder(folder) as scratch:
                    self._encode(rows, processor, max_length, scratch)
                    # Keep the entries of the last day: workers that share a study open a split one after the other.
                    evict(self._folder, 0, self._budget, unused_seconds=86400.0)
                    scratch.rename(folder)  # last: a folder of this name is complete
            touch(folder)
        encoded, tensors = Dataset.load_from_disk(str(folder)), open_tensors(folder)
        found = Features.from_dataset(encoded, getattr(processor, "pad_token_id", 0), folder.name, rows, tensors)
        prepare = functools.partial(self._task.prepare_batch, processor=processor)
        return replace(found, prepare_batch=prepare, processor=processor)

    def _encode(self, rows: Any, processor: Any, max_length: int, folder: Path) -> None:
        """Encode `rows` into `folder`, `encode_batch_size` at once: pixels and audio would take much memory."""
        from datasets import concatenate_datasets

        tensors = TensorFiles(folder)
        at_once = self._task.encode_batch_size or len(rows)
        encoded = []
        for start in range(0, len(rows), at_once):
            part = rows if at_once >= len(rows) else take(rows, range(start, min(start + at_once, len(rows))))
            encoded.append(tensors.extract(self._task.encode(part, processor, max_length)))
        concatenate_datasets(encoded).save_to_disk(str(folder))
        tensors.write_manifest()


# Cached, as it takes 0.1 s with a vocabulary of 30,000.
@functools.lru_cache(maxsize=32)
def _identity(processor: Any) -> str:
    """Return a digest of a processor's settings, or of a tokenizer's full definition."""
    plain = json.dumps(_definition(processor), sort_keys=True, default=str)
    return hashlib.sha256(plain.encode()).hexdigest()


def _definition(processor: Any) -> Any:
    name = type(processor).__name__
    if hasattr(processor, "get_attributes"):  # a feature extractor with a tokenizer
        return [name, *(_definition(getattr(processor, part)) for part in processor.get_attributes())]
    if not hasattr(processor, "get_vocab"):
        return [name, processor.to_dict()]
    backend = getattr(processor, "backend_tokenizer", None)
    if backend is None:
        definition: Any = sorted(processor.get_vocab().items())
    else:
        # Truncation and padding are those of its last call, not settings of the tokenizer.
        parts = json.loads(backend.to_str())
        definition = {key: part for key, part in parts.items() if key not in ("truncation", "padding")}
    texts = [processor.chat_template, processor.init_kwargs.get("source_prefix")]
    inputs = [processor.model_input_names, processor.split_special_tokens]
    return [name, processor.padding_side, processor.truncation_side, texts, inputs, definition]
