"""The frozen-prefix cache: the output of frozen layers never changes, so each machine computes it once.

folder/KEY-3/    hidden.bin      the hidden states after layer 3, one vector a token (an image: one), input after input
                 manifest.json   what they are (written last; then the folder is renamed to its name)

KEY is a digest of the model's weights, the encoded data (task, rows, processor, max_length), the number format and the
tokens kept. The states after fewer layers serve to compute those of deeper ones. The least recently used entry is
evicted when the folder would exceed its budget.
"""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import filelock
import numpy as np
import torch
from torch import nn

from hpo.core.cache import CACHE_BYTES, evict, scratch_folder, touch
from hpo.training.batches.batching import evaluation_batches
from hpo.training.batches.features import Features, Indices, Tokens, pop_labels
from hpo.training.frozen.partial_forward import (
    PREFIX_STATES,
    PartialForward,
    SplitCheck,
    flatten_states,
    position_mask,
)
from hpo.training.memory.out_of_memory import with_fewer_tokens
from hpo.training.models.layers import hidden_state

FORMAT = 2  # increase it when what is stored changes
# The cost model, in bytes a second: writing to a modest disk, and reading from the system's page cache.
WRITE_RATE, READ_RATE = 300e6, 2e9
USED = "used"  # the decision recorded in `Execution.prefix_cache`


@dataclass(frozen=True)
class StoredPrefix:
    """Memory-mapped hidden states of one split: `values` is [vectors, width], input i starts at `offsets[i]`."""

    values: torch.Tensor
    offsets: Indices

    def padded(self, rows: Indices, mask: torch.Tensor) -> torch.Tensor:
        """Return the hidden states of `rows`, of shape [*mask.shape, width], 0 at padding."""
        index = torch.from_numpy(self.offsets[rows])[:, None] + torch.arange(mask.shape[1])
        real = mask.bool()
        found = nn.functional.embedding(torch.where(real, index, 0), self.values)
        return found.masked_fill_(~real[..., None], 0)


@dataclass(frozen=True)
class JoinedPrefix:
    """Hidden states of several splits (such as folds), split after split."""

    parts: tuple[StoredPrefix, ...]

    def padded(self, rows: Indices, mask: torch.Tensor) -> torch.Tensor:
        """As `StoredPrefix.padded`."""
        values = self.parts[0].values
        found = values.new_zeros(*mask.shape, values.shape[1])
        first = 0
        for part in self.parts:
            end = first + len(part.offsets) - 1
            here = (rows >= first) & (rows < end)
            if here.any():
                selected = torch.from_numpy(here)
                found[selected] = part.padded(rows[here] - first, mask[selected])
            first = end
        return found


@dataclass(frozen=True)
class PrefixedFeatures(Features):
    """Features whose batches include the hidden states from which the model starts."""

    prefix: StoredPrefix | JoinedPrefix | None = None

    def collate(self, rows: Indices) -> dict[str, torch.Tensor]:
        """As `Features.collate`, with the hidden states under `PREFIX_STATES`."""
        batch = super().collate(rows)
        assert self.prefix is not None
        mask = position_mask(batch) if self.ragged else torch.ones(len(rows), 1)
        return {**batch, PREFIX_STATES: self.prefix.padded(rows, mask)}


class PrefixCache:
    """The cache of one machine, in `folder`. Which models can be split is kept in this process."""

    def __init__(self, folder: Path, budget_bytes: int = CACHE_BYTES) -> None:
        self._folder = folder
        self._budget = budget_bytes
        self._checks: dict[tuple[object, ...], SplitCheck] = {}

    def attach(
        self,
        forward: PartialForward,
        model: tuple[str, object],
        splits: list[Features],
        epochs: float,
        stop: threading.Event,
    ) -> tuple[list[Features], str]:
        """Make the model of `forward` start after its frozen layers, where it can be split and the cache pays.

        `model` is the digest of its weights and what else changes its computation (dropout). Returns the splits to
        train and evaluate with, and `USED` or `not used: …` with the reason; then the splits are those given. A
        decision in `forward.execution` is kept. Computing missing states ends early when `stop` is set.
        """
        decided = forward.execution.prefix_cache
        if decided not in (None, USED):
            return splits, decided or ""
        identity = (*model, forward.layers, forward.execution.device, forward.execution.dtype)
        if identity not in self._checks:
            self._checks[identity] = forward.check(splits[0])
        check = self._checks[identity]
        digest = model[0]
        reason = check.reason or (self._objection(forward, digest, splits, check, epochs) if decided is None else "")
        if not reason:
            try:
                attached = [self._prefixed(forward, digest, features, check, stop) for features in splits]
            except InterruptedError:
                return splits, "not used: stopped before it was computed"
            except OSError as error:
                reason = f"the disk cannot hold it ({error.strerror})"
        if reason:
            return splits, f"not used: {reason}"
        forward.install(check)
        return list(attached), USED

    def _objection(
        self, forward: PartialForward, digest: str, splits: list[Features], check: SplitCheck, epochs: float
    ) -> str:
        """Return why the cache does not pay by the cost model; empty: it does.

        Computing the frozen part once costs nothing extra: a run without cache does it too.
        """
        parts = [part for features in splits for part in features.parts]
        if not all(part.key for part in parts):
            return "this data has no key to store it by"
        saved = cost = 0.0
        needed = 0
        for part in parts:
            size = _stored_bytes(forward, part, check)
            stored = self._entry(forward, digest, part, check.tokens).is_dir()
            saved += (epochs if stored else epochs - 1) * int(part.lengths.sum()) * check.seconds_per_token
            cost += size * (epochs / READ_RATE + (0 if stored else 1 / WRITE_RATE))
            needed += 0 if stored else size
        if needed > self._budget or needed > self._free_bytes() / 2:
            return f"it needs {needed / 2**20:,.0f} MB of disk"
        return "" if saved > cost else f"it saves {saved:.2f} s and costs {cost:.2f} s"

    def _free_bytes(self) -> int:
        """Return the free bytes of the disk that holds, or will hold, the cache."""
        existing = next(path for path in (self._folder, *self._folder.parents) if path.is_dir())
        return shutil.disk_usage(existing).free

    def _entry(self, forward: PartialForward, digest: str, features: Features, tokens: Tokens) -> Path:
        """Return the folder of a split's hidden states, whether it exists or not."""
        parts = [FORMAT, digest, features.key, forward.execution.dtype, tokens]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
        return self._folder / f"{key}-{forward.layers}"

    def _prefixed(
        self, forward: PartialForward, digest: str, features: Features, check: SplitCheck, stop: threading.Event
    ) -> Features:
        """Return a split with its hidden states, each of its parts stored by its own key.

        Raises `OSError`, `InterruptedError`.
        """
        stored = tuple(self._stored(forward, digest, part, check, stop) for part in features.parts)
        prefix = stored[0] if len(stored) == 1 else JoinedPrefix(stored)
        return _with_prefix(features.select_tokens(check.tokens), prefix)

    def _stored(
        self, forward: PartialForward, digest: str, features: Features, check: SplitCheck, stop: threading.Event
    ) -> StoredPrefix:
        """Open the hidden states of a split, computing them where no process has."""
        entry = self._entry(forward, digest, features, check.tokens)
        selected = features.select_tokens(check.tokens)
        with self._locked(entry, stop):
            if not entry.is_dir():
                self._compute(entry, forward, digest, features, selected, check, stop)
        touch(entry)
        return _open(entry, selected, check, forward)

    @contextmanager
    def _locked(self, entry: Path, stop: threading.Event) -> Iterator[None]:
        """Hold the lock of an entry: one process computes it, others wait. Raises `InterruptedError` on `stop`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(f"{entry}.lock")
        while True:
            try:
                with lock.acquire(timeout=0.5):
                    yield
                    return
            except filelock.Timeout:
                if stop.is_set():
                    raise InterruptedError from None

    def _compute(
        self,
        entry: Path,
        forward: PartialForward,
        digest: str,
        features: Features,
        selected: Features,
        check: SplitCheck,
        stop: threading.Event,
    ) -> None:
        source, lower = self._nearest_below(forward, digest, features, check)
        size = int(selected.state_counts().sum()) * check.width * forward.storage_dtype.itemsize
        evict(self._folder, size, self._budget)
        try:
            with scratch_folder(entry) as scratch:
                with (scratch / "hidden.bin").open("wb") as file:
                    # A full disk raises here. While a memory map is written, it would kill the process.
                    allocate = getattr(os, "posix_fallocate", None)
                    allocate(file.fileno(), 0, size) if allocate else file.truncate(size)
                values = _map(scratch / "hidden.bin", size, check, forward, shared=True)
                _fill(values, forward, source, selected, check, stop)
                manifest = {
                    "layers": forward.layers,
                    "dtype": str(forward.storage_dtype),
                    "tokens": check.tokens,
                    "shape": check.shape,
                    "size": size,
                }
                (scratch / "manifest.json").write_text(json.dumps(manifest))
                scratch.rename(entry)
        finally:
            if lower is not None:
                lower.remove()

    def _nearest_below(
        self, forward: PartialForward, digest: str, features: Features, check: SplitCheck
    ) -> tuple[Features, PartialForward | None]:
        """Return the deepest stored states below `forward` and the model starting there; else the plain features."""
        for layers in range(forward.layers - 1, 0, -1):
            lower = forward.below(layers)
            entry = self._entry(lower, digest, features, "all")
            if entry.is_dir():
                try:
                    stored = _open(entry, features, check, forward)
                except OSError:
                    continue  # evicted since
                lower.install(check)
                return _with_prefix(features, stored), lower
        return features, None


def _stored_bytes(forward: PartialForward, features: Features, check: SplitCheck) -> int:
    """Return the size of a split's hidden states on disk."""
    vectors = int(features.state_counts().sum()) if check.tokens == "all" else len(features)
    return vectors * check.width * forward.storage_dtype.itemsize


def _fill(
    values: torch.Tensor,
    forward: PartialForward,
    source: Features,
    selected: Features,
    check: SplitCheck,
    stop: threading.Event,
) -> None:
    """Compute the frozen part for every input of `source` and write the vectors that `selected` keeps to `values`."""
    offsets, counts = _offsets(selected), source.state_counts()

    def fill(tokens: int) -> None:
        for rows in evaluation_batches(source.lengths, tokens):
            if stop.is_set():
                raise InterruptedError
            batch = {name: tensor.to(forward.execution.device) for name, tensor in source.collate(rows).items()}
            pop_labels(forward.model, batch)
            hidden = hidden_state(forward.hidden_states(batch))
            vectors = flatten_states(hidden, source, batch).to("cpu", values.dtype)
            for index, row in enumerate(rows):
                length = int(counts[row])
                first, end = {"all": (0, length), "first": (0, 1), "last": (length - 1, length)}[check.tokens]
                values[offsets[row] : offsets[row + 1]] = vectors[index, first:end]

    device, longest = forward.execution.device, int(source.lengths.max())
    with_fewer_tokens(fill, forward.execution.evaluation_tokens, longest, device)


def _with_prefix(features: Features, prefix: StoredPrefix | JoinedPrefix) -> PrefixedFeatures:
    given = {field.name: getattr(features, field.name) for field in fields(Features)}
    return PrefixedFeatures(**given, prefix=prefix)


def _open(entry: Path, features: Features, check: SplitCheck, forward: PartialForward) -> StoredPrefix:
    """Map an entry's hidden states into memory. Raises `OSError` where its size or shape is not the expected one."""
    size = int(features.state_counts().sum()) * check.width * forward.storage_dtype.itemsize
    if (entry / "hidden.bin").stat().st_size != size:
        raise OSError(0, "its size is wrong", str(entry))
    if tuple(json.loads((entry / "manifest.json").read_text())["shape"]) != check.shape:
        raise OSError(0, "its shape is another layer's", str(entry))
    return StoredPrefix(_map(entry / "hidden.bin", size, check, forward, shared=False), _offsets(features))


def _offsets(features: Features) -> Indices:
    """Return the index of each input's first vector, and the end of the last input."""
    return np.concatenate([[0], np.cumsum(features.state_counts())])


def _map(path: Path, size: int, check: SplitCheck, forward: PartialForward, shared: bool) -> torch.Tensor:
    dtype = forward.storage_dtype
    flat = torch.from_file(str(path), shared=shared, size=size // dtype.itemsize, dtype=dtype)
    return flat.view(-1, check.width)
