"""Runs a model from the middle, whatever its architecture: its bottom layers return stored hidden states.

No module is moved or renamed. Only the `forward` of the skipped layers is replaced, so that what a model reads from a
layer or counts by its index is unchanged. A batch without stored hidden states passes through the full model.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from hpo.tasks.objective import logits_of
from hpo.training.batches.features import Batch, Features, Indices, Tokens, pop_labels
from hpo.training.execution import Execution
from hpo.training.models.layers import LayerStack, hidden_state, neighbor_modules, stack_items, train_mode

PREFIX_STATES = "prefix_hidden_states"  # the key of a batch under which the stored hidden states are
# Largest difference of logits between the split and the full model, relative to the largest logit.
TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2}
CHECKED_ROWS = 4


class _Reached(Exception):
    """The last frozen layer has returned: the rest of the forward pass is not needed."""


@dataclass(frozen=True)
class SplitCheck:
    """The result of checking whether one model can be split after a number of layers, and how."""

    reason: str = ""  # why it cannot be split; empty: it can
    tokens: Tokens = "all"  # whose hidden states the rest of the model reads
    seconds_per_token: float = 0.0  # of the frozen part's forward pass
    width: int = 0  # of a stored vector
    shape: tuple[int, ...] = ()  # of an input's hidden state that is stored as one vector; (): one vector a token
    texts: int = 1  # in an input; the vectors of all texts at one position are stored as one
    dtype: torch.dtype = torch.float32  # of the last frozen layer's output
    rest: tuple[Any, ...] | None = None  # what that layer returns after the hidden state; None: it returns no tuple
    skipped: tuple[str, ...] = ()  # names of modules before the layers that need not be computed either


class PartialForward:
    """A model whose bottom `layers` layers, and the modules before them, can be skipped."""

    def __init__(
        self, model: nn.Module, stack: LayerStack, layers: int, frozen: list[nn.Module], execution: Execution
    ) -> None:
        self.layers = layers
        self.execution = execution
        self._model = model
        self._stack = stack
        self._frozen = frozen
        self._items = list(stack_items(model, stack))
        self._stored: torch.Tensor | None = None  # the hidden states of the batch in the current forward pass
        self._undo: list[Callable[[], None]] = []

    @property
    def model(self) -> nn.Module:
        """The model that is split."""
        return self._model

    @property
    def storage_dtype(self) -> torch.dtype:
        """The type in which hidden states are stored."""
        return torch.bfloat16 if self.execution.dtype == "bfloat16" else torch.float32

    def below(self, layers: int) -> "PartialForward":
        """Return the same model, split after fewer layers."""
        return PartialForward(self._model, self._stack, layers, self._frozen, self.execution)

    def hidden_states(self, batch: Mapping[str, torch.Tensor]) -> Any:
        """Return the output of the last frozen layer for `batch`, computing nothing after it."""
        outputs: list[Any] = []

        def reached(module: nn.Module, args: Any, output: Any) -> None:
            outputs.append(output)
            # A layer that the model calls several times (ALBERT's) has returned its last output when the stack has.
            if len(self._items) > 1:
                raise _Reached

        hook = self._items[self.layers - 1].register_forward_hook(reached)
        try:
            with torch.no_grad(), self.execution.autocast():
                self._model(**batch)
        except _Reached:
            pass
        finally:
            hook.remove()
        return outputs[-1]

    def check(self, features: Features) -> SplitCheck:
        """Compare the split with the full model on a few inputs of different lengths; leaves the model in eval mode."""
        cuda = [self.execution.device] if self.execution.device.startswith("cuda") else []
        with torch.random.fork_rng(devices=cuda):  # a run draws the same random numbers with and without the check
            return self._check(features)

    def _check(self, features: Features) -> SplitCheck:
        rows = _rows_of_all_lengths(features.lengths)
        batch = self._batch(features, rows)
        train_mode(self._model, self._frozen)
        in_training = hidden_state(self.hidden_states(batch))
        self._model.eval()
        started = time.perf_counter()
        output = self.hidden_states(batch)
        seconds = (time.perf_counter() - started) / (len(rows) * int(features.lengths[rows].max()))
        rest = output[1:] if isinstance(output, tuple) else None
        if any(isinstance(part, torch.Tensor) for part in rest or ()):
            return SplitCheck("its layers return more than a hidden state")
        hidden = hidden_state(output)
        vectors = flatten_states(hidden, features, batch)
        mask = position_mask(batch) if features.ragged else torch.ones(len(rows), 1)
        mask = mask.to(hidden.device).bool()
        if vectors.ndim != 3 or vectors.shape[:2] != mask.shape:
            return SplitCheck("its layers do not return one vector a token")
        if not torch.equal(flatten_states(in_training, features, batch)[mask], vectors[mask]):
            return SplitCheck("dropout acts before the end of its frozen layers")
        shape = () if features.ragged else tuple(hidden.shape[1:])
        found = SplitCheck("", "all", seconds, vectors.shape[-1], shape, texts_per_input(batch), hidden.dtype, rest)
        return self._compare(found, features, rows, batch, hidden, (vectors * mask[..., None]).to(self.storage_dtype))

    def _compare(
        self,
        found: SplitCheck,
        features: Features,
        rows: Indices,
        batch: Batch,
        hidden: torch.Tensor,
        stored: torch.Tensor,
    ) -> SplitCheck:
        """Complete `found` with the modules that can be skipped and the tokens that are read, as logits agree."""
        expected = self._logits(batch)
        split = {**batch, PREFIX_STATES: stored}
        # Skip embeddings too, unless other modules read them: DeBERTa's convolution does, after the first layer.
        ways = (replace(found, skipped=names) for names in dict.fromkeys((self._skippable(hidden, batch), ())))
        agreeing = next((way for way in ways if self._agrees(way, split, expected)), None)
        if agreeing is None:
            return SplitCheck("split in two, it computes something else")
        tokens = self._tokens_read(agreeing, split) if features.ragged else "all"
        if tokens == "all":
            return agreeing
        short = self._batch(features.select_tokens(tokens), rows)
        counts = position_mask(batch).to(stored.device).bool().sum(1)
        index = counts - 1 if tokens == "last" else counts * 0
        short[PREFIX_STATES] = stored[torch.arange(len(rows), device=stored.device), index][:, None]
        return replace(agreeing, tokens=tokens) if self._agrees(agreeing, short, expected) else agreeing

    def _batch(self, features: Features, rows: Indices) -> Batch:
        """Return the inputs `rows` without labels, on the device."""
        batch = {name: tensor.to(self.execution.device) for name, tensor in features.collate(rows).items()}
        pop_labels(self._model, batch)
        return batch

    def install(self, check: SplitCheck) -> None:
        """Make the frozen part return the stored hidden states of a batch that has them (`PREFIX_STATES`)."""

        def skip(module: nn.Module, rest: tuple[Any, ...] | None) -> None:
            compute = module.forward

            def forward(*args: Any, **keywords: Any) -> Any:
                if self._stored is None:
                    return compute(*args, **keywords)
                stored = self._stored.to(check.dtype)
                if check.shape:
                    stored = stored.view(-1, *check.shape)
                if check.texts > 1:
                    stored = stored.unflatten(2, (check.texts, -1)).transpose(1, 2).flatten(0, 1)
                return stored if rest is None else (stored, *rest)

            module.forward = forward
            self._undo.append(lambda: delattr(module, "forward"))

        for layer in self._items[: self.layers]:
            skip(layer, check.rest)
        for name in check.skipped:
            skip(self._model.get_submodule(name), None)

        def take(model: nn.Module, args: Any, keywords: dict[str, Any]) -> Any:
            self._stored = keywords.pop(PREFIX_STATES, None)
            return args, keywords

        def forget(model: nn.Module, args: Any, output: Any) -> None:
            self._stored = None  # `generate` calls the layers of a model without its forward pass

        self._undo.append(self._model.register_forward_pre_hook(take, with_kwargs=True).remove)
        self._undo.append(self._model.register_forward_hook(forget).remove)

    def remove(self) -> None:
        """Undo `install`."""
        while self._undo:
            self._undo.pop()()
        self._stored = None

    def _skippable(self, hidden: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
        """Return the names of the modules before the layers whose output has a hidden state's shape (embeddings)."""
        before, _ = neighbor_modules(self._model, self._stack)
        matches: dict[int, bool] = {}

        def compare(module: nn.Module, args: Any, output: Any) -> None:
            matches[id(module)] = isinstance(output, torch.Tensor) and output.shape == hidden.shape

        hooks = [module.register_forward_hook(compare) for module in before]
        self.hidden_states(batch)
        for hook in hooks:
            hook.remove()
        return tuple(name for name, module in self._model.named_modules() if matches.get(id(module)))

    def _logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        with torch.no_grad(), self.execution.autocast():
            logits = logits_of(self._model(**batch)).float()
        # The logits of padding are arbitrary and left out. A decoder's logits are of other tokens than the mask's.
        mask = batch["attention_mask"].bool() if "attention_mask" in batch else None
        return logits[mask] if mask is not None and logits.shape[:2] == mask.shape else logits

    def _agrees(self, check: SplitCheck, batch: Mapping[str, torch.Tensor], expected: torch.Tensor) -> bool:
        self.install(check)
        try:
            found = self._logits(batch)
        finally:
            self.remove()
        allowed = TOLERANCE[self.execution.dtype] * float(expected.abs().max())
        return found.shape == expected.shape and float((found - expected).abs().max()) <= allowed

    def _tokens_read(self, check: SplitCheck, batch: Mapping[str, torch.Tensor]) -> Tokens:
        """Return whose hidden states have a gradient: with all layers frozen, often one token's."""
        leaf = batch[PREFIX_STATES].float().requires_grad_()
        self.install(check)
        try:
            with torch.enable_grad(), self.execution.autocast():
                logits = logits_of(self._model(**{**batch, PREFIX_STATES: leaf})).float()
        finally:
            self.remove()
        # Each logit has its own weight: the gradients of a plain sum could cancel out.
        weights = torch.arange(1, logits.numel() + 1, device=logits.device, dtype=logits.dtype)
        (gradient,) = torch.autograd.grad((logits.flatten() * weights).sum(), leaf)
        read = gradient.abs().sum(-1) > 0
        last = position_mask(batch).sum(1, keepdim=True) - 1
        columns = torch.arange(read.shape[1], device=read.device)
        if not bool((read & (columns != 0)).any()):
            return "first"
        if not bool((read & (columns != last)).any()):
            return "last"
        return "all"


def _rows_of_all_lengths(lengths: Indices) -> Indices:
    """Return a few rows, evenly spaced in the order of their lengths."""
    order = np.argsort(lengths, kind="stable")
    rows: Indices = order[np.linspace(0, len(order) - 1, min(CHECKED_ROWS, len(order))).astype(int)]
    return rows


def flatten_states(hidden: torch.Tensor, features: Features, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return hidden states as they are stored, [inputs, vectors, width]: one vector a token, or one an input.

    Where an input has several texts, the vectors of all texts at one position are joined.
    """
    if not features.ragged:
        return hidden.flatten(1)[:, None]
    texts = texts_per_input(batch)
    return hidden.unflatten(0, (-1, texts)).transpose(1, 2).flatten(2) if texts > 1 else hidden


def texts_per_input(batch: Mapping[str, torch.Tensor]) -> int:
    """Return how many texts an input has (the answers of a multiple-choice question)."""
    mask = batch.get("attention_mask", torch.empty(0))
    return mask.shape[1] if mask.ndim == 3 else 1


def position_mask(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return which positions hold a token, [inputs, positions]; where an input has several texts, of any of them."""
    mask = batch.get("attention_mask", torch.empty(0))
    return mask.amax(1) if mask.ndim == 3 else mask
