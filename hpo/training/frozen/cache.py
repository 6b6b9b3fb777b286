"""The frozen-prefix cache: what frozen layers compute for an example never changes, so it is computed once a machine.

folder/KEY-3/    hidden.bin      the hidden states after layer 3, one vector a token (an image: one), examples after
                                 each other
                 manifest.json   what it holds (written last, then the folder is renamed to its name)

KEY is a digest of the model's weights, the encoded data (task, rows, processor, max_length), the number format and the
tokens kept. A cache of fewer layers serves deeper ones: they are computed from it. The least recently used goes first
when the folder would grow past its budget.
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

from hpo.core.cache import CACHE_BYTES, evict, touch
from hpo.training.batches.batching import evaluation_batches
from hpo.training.batches.features import Features, Indices, Tokens, pop_labels
from hpo.training.frozen.partial_forward import PREFIX, PartialForward, SplitCheck, flat, places
from hpo.training.memory.out_of_memory import with_fewer_tokens
from hpo.training.models.layers import hidden_state

FORMAT = 2  # raise it when what is stored changes
# The cost model: bytes a second of a modest disk, and of reading what the system keeps in memory.
WRITE_RATE, READ_RATE = 300e6, 2e9
USED = "used"  # the verdict recorded in `Execution.prefix_cache`


@dataclass(frozen=True)
class StoredPrefix:
    """Hidden states of one split, memory-mapped: `values` is [places, width], example i begins at `offsets[i]`."""

    values: torch.Tensor
    offsets: Indices

    def padded(self, rows: Indices, mask: torch.Tensor) -> torch.Tensor:
        """The hidden states of `rows`, of shape [*mask.shape, width], 0 at padding."""
        places = torch.from_numpy(self.offsets[rows])[:, None] + torch.arange(mask.shape[1])
        real = mask.bool()
        found = nn.functional.embedding(torch.where(real, places, 0), self.values)
        return found.masked_fill_(~real[..., None], 0)


@dataclass(frozen=True)
class JoinedPrefix:
    """The hidden states of several splits (folds, say), the examples of each after those of the one before."""

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
                places = torch.from_numpy(here)
                found[places] = part.padded(rows[here] - first, mask[places])
            first = end
        return found


@dataclass(frozen=True)
class PrefixedFeatures(Features):
    """Features whose batches bring the hidden states from which the model starts."""

    prefix: StoredPrefix | JoinedPrefix | None = None

    def collate(self, rows: Indices) -> dict[str, torch.Tensor]:
        batch = super().collate(rows)
        assert self.prefix is not None
        mask = places(batch) if self.ragged else torch.ones(len(rows), 1)
        return {**batch, PREFIX: self.prefix.padded(rows, mask)}


class PrefixCache:
    """The cache of one machine, in `folder`; this process remembers what fits which model."""

    def __init__(self, folder: Path, budget_bytes: int = CACHE_BYTES) -> None:
        self._folder = folder
        self._budget = budget_bytes
        self._verdicts: dict[tuple[object, ...], SplitCheck] = {}

    def attach(
        self,
        start: PartialForward,
        model: tuple[str, object],
        splits: list[Features],
        epochs: float,
        stop: threading.Event,
    ) -> tuple[list[Features], str]:
        """Have the model of `start` begin after its frozen layers, where that fits it and pays.

        `model` is its weights' digest and what else sets its computation apart (dropout). Returns the splits to train
        and evaluate with, and `USED` or why not; then the splits are those given. What `start.execution` has decided
        is not weighed again. Computing what is missing ends early when `stop` is set.
        """
        decided = start.execution.prefix_cache
        if decided not in (None, USED):
            return splits, decided or ""
        identity = (*model, start.layers, start.execution.device, start.execution.dtype)
        if identity not in self._verdicts:
            self._verdicts[identity] = start.check(splits[0])
        verdict = self._verdicts[identity]
        digest = model[0]
        reason = verdict.reason or (self._objection(start, digest, splits, verdict, epochs) if decided is None else "")
        if not reason:
            try:
                attached = [self._prefixed(start, digest, features, verdict, stop) for features in splits]
            except InterruptedError:
                return splits, "not used: stopped before it was computed"
            except OSError as error:
                reason = f"the disk does not take it ({error.strerror})"
        if reason:
            return splits, f"not used: {reason}"
        start.install(verdict)
        return list(attached), USED

    def _objection(
        self, start: PartialForward, digest: str, splits: list[Features], verdict: SplitCheck, epochs: float
    ) -> str:
        """Why it does not pay: the cost model. Computing the frozen part once is what a run without cache does too."""
        parts = [part for features in splits for part in features.parts]
        if not all(part.key for part in parts):
            return "this data has no identity to keep it by"
        saved = cost = 0.0
        needed = 0
        for part in parts:
            tokens = int(part.lengths.sum())
            kept = int(part.states().sum()) if verdict.tokens == "all" else len(part)
            size = kept * verdict.width * start.storage_dtype.itemsize
            stored = self._place(start, digest, part, verdict.tokens).is_dir()
            saved += (epochs if stored else epochs - 1) * tokens * verdict.seconds_per_token
            cost += size * (epochs / READ_RATE + (0 if stored else 1 / WRITE_RATE))
            needed += 0 if stored else size
        if needed > self._budget or needed > shutil.disk_usage(self._existing()).free / 2:
            return f"it needs {needed / 2**20:,.0f} MB of disk"
        return "" if saved > cost else f"it saves {saved:.2f} s and costs {cost:.2f} s"

    def _existing(self) -> Path:
        return next(path for path in (self._folder, *self._folder.parents) if path.is_dir())

    def _place(self, start: PartialForward, digest: str, features: Features, tokens: Tokens) -> Path:
        parts = [FORMAT, digest, features.key, start.execution.dtype, tokens]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
        return self._folder / f"{key}-{start.layers}"

    def _prefixed(
        self, start: PartialForward, digest: str, features: Features, verdict: SplitCheck, stop: threading.Event
    ) -> Features:
        """The split with its hidden states, those of each of its parts kept by its own key.

        Raises `OSError`, `InterruptedError`.
        """
        stored = tuple(self._stored(start, digest, part, verdict, stop) for part in features.parts)
        return _with_prefix(features.only(verdict.tokens), stored[0] if len(stored) == 1 else JoinedPrefix(stored))

    def _stored(
        self, start: PartialForward, digest: str, features: Features, verdict: SplitCheck, stop: threading.Event
    ) -> StoredPrefix:
        """The hidden states of a split, computed now if nobody did before."""
        place = self._place(start, digest, features, verdict.tokens)
        short = features.only(verdict.tokens)
        with self._locked(place, stop):
            if not place.is_dir():
                self._compute(place, start, digest, features, short, verdict, stop)
        touch(place)
        return _open(place, short, verdict, start)

    @contextmanager
    def _locked(self, place: Path, stop: threading.Event) -> Iterator[None]:
        """One process computes while the others wait, and go on waiting no longer than their own stop flag allows."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(f"{place}.lock")
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
        place: Path,
        start: PartialForward,
        digest: str,
        features: Features,
        short: Features,
        verdict: SplitCheck,
        stop: threading.Event,
    ) -> None:
        source, lower = self._nearest_below(start, digest, features, verdict)
        size = int(short.states().sum()) * verdict.width * start.storage_dtype.itemsize
        evict(self._folder, size, self._budget)
        scratch = place.with_name(f"{place.name}.{os.getpid()}")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            with (scratch / "hidden.bin").open("wb") as file:
                # A full disk is told now; in the middle of a memory map it would kill the process.
                os.posix_fallocate(file.fileno(), 0, size) if hasattr(os, "posix_fallocate") else file.truncate(size)
            values = _map(scratch / "hidden.bin", size, verdict, start, shared=True)
            _fill(values, start, source, short, verdict, stop)
            manifest = {
                "layers": start.layers,
                "dtype": str(start.storage_dtype),
                "tokens": verdict.tokens,
                "shape": verdict.shape,
                "size": size,
            }
            (scratch / "manifest.json").write_text(json.dumps(manifest))
            scratch.rename(place)
        finally:
            if lower is not None:
                lower.remove()
            shutil.rmtree(scratch, ignore_errors=True)

    def _nearest_below(
        self, start: PartialForward, digest: str, features: Features, verdict: SplitCheck
    ) -> tuple[Features, PartialForward | None]:
        """The deepest kept hidden states below `start` and the model started there; else the plain features."""
        for layers in range(start.layers - 1, 0, -1):
            lower = start.below(layers)
            place = self._place(lower, digest, features, "all")
            if place.is_dir():
                try:
                    stored = _open(place, features, verdict, start)
                except OSError:
                    continue  # evicted at this moment
                lower.install(verdict)
                return _with_prefix(features, stored), lower
        return features, None


def _fill(
    values: torch.Tensor,
    start: PartialForward,
    source: Features,
    short: Features,
    verdict: SplitCheck,
    stop: threading.Event,
) -> None:
    """Compute the frozen part of every example of `source` and lay out what `short` keeps of it."""
    offsets, states = _offsets(short), source.states()

    def fill(tokens: int) -> None:
        for rows in evaluation_batches(source.lengths, tokens):
            if stop.is_set():
                raise InterruptedError
            batch = {name: tensor.to(start.execution.device) for name, tensor in source.collate(rows).items()}
            pop_labels(start.model, batch)
            hidden = flat(hidden_state(start.hidden_states(batch)), source, batch).to("cpu", values.dtype)
            for place, row in enumerate(rows):
                length = int(states[row])
                first, end = {"all": (0, length), "first": (0, 1), "last": (length - 1, length)}[verdict.tokens]
                values[offsets[row] : offsets[row + 1]] = hidden[place, first:end]

    device, longest = start.execution.device, int(source.lengths.max())
    with_fewer_tokens(fill, start.execution.evaluation_tokens, longest, device)


def _with_prefix(features: Features, prefix: StoredPrefix | JoinedPrefix) -> PrefixedFeatures:
    given = {field.name: getattr(features, field.name) for field in fields(Features)}
    return PrefixedFeatures(**given, prefix=prefix)


def _open(place: Path, features: Features, verdict: SplitCheck, start: PartialForward) -> StoredPrefix:
    size = int(features.states().sum()) * verdict.width * start.storage_dtype.itemsize
    if (place / "hidden.bin").stat().st_size != size:
        raise OSError(0, "its size is wrong", str(place))
    if tuple(json.loads((place / "manifest.json").read_text())["shape"]) != verdict.shape:
        raise OSError(0, "its shape is another layer's", str(place))
    return StoredPrefix(_map(place / "hidden.bin", size, verdict, start, shared=False), _offsets(features))


def _offsets(features: Features) -> Indices:
    """Where each input's vectors begin, and where the last one's end."""
    return np.concatenate([[0], np.cumsum(features.states())])


def _map(path: Path, size: int, verdict: SplitCheck, start: PartialForward, shared: bool) -> torch.Tensor:
    dtype = start.storage_dtype
    flat = torch.from_file(str(path), shared=shared, size=size // dtype.itemsize, dtype=dtype)
    return flat.view(-1, verdict.width)
