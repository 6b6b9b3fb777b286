"""Starting a model in the middle, without a table of models: its bottom layers return hidden states kept from before.

The layers stay where they are, and only what they compute is replaced, so that whatever a model looks up on a layer
or counts by its place holds as ever. A batch without a kept hidden state passes through the whole model.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from hpo.tasks.base import logits_of
from hpo.training.batches.features import Features, Tokens, pop_labels
from hpo.training.execution import Execution
from hpo.training.models.layers import LayerStack, hidden_state, neighbor_modules, stack_items, train_mode

PREFIX = "prefix_hidden_states"  # the entry of a batch that holds the hidden states to start from
# Largest difference of logits between the split model and the whole one, relative to the largest logit.
TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2}
CHECKED_ROWS = 4


class _Reached(Exception):
    """The last frozen layer has answered: the rest of the forward pass is not needed."""


@dataclass(frozen=True)
class SplitCheck:
    """What the self-check found for one model and count of layers."""

    reason: str = ""  # why it cannot start in the middle; empty: it can
    tokens: Tokens = "all"  # whose hidden states the rest of the model reads
    seconds_per_token: float = 0.0  # of the frozen part's forward pass
    width: int = 0
    shape: tuple[int, ...] = ()  # of an example's hidden state, where it is kept as one vector; (): a vector a token
    texts: int = 1  # that an input is: their vectors at one place are kept as one
    dtype: torch.dtype = torch.float32  # in which the last frozen layer answers
    rest: tuple[Any, ...] | None = None  # what it returns beside the hidden state; None: it returns no tuple
    skipped: tuple[str, ...] = ()  # modules before the layers that need not be computed either


class PartialForward:
    """A model whose bottom `layers` layers, and what stands before them, can be skipped."""

    def __init__(
        self, model: nn.Module, stack: LayerStack, layers: int, frozen: list[nn.Module], execution: Execution
    ) -> None:
        self.layers = layers
        self.execution = execution
        self._model = model
        self._stack = stack
        self._frozen = frozen
        self._items = list(stack_items(model, stack))
        self._kept: torch.Tensor | None = None
        self._undo: list[Callable[[], None]] = []

    @property
    def model(self) -> nn.Module:
        return self._model

    @property
    def storage_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.execution.dtype == "bfloat16" else torch.float32

    def below(self, layers: int) -> "PartialForward":
        """The same model, started after fewer layers."""
        return PartialForward(self._model, self._stack, layers, self._frozen, self.execution)

    def hidden_states(self, batch: Mapping[str, torch.Tensor], layers: int | None = None) -> Any:
        """What layer number `layers` (the last frozen one) returns for `batch`; nothing after it is computed."""
        caught: list[Any] = []

        def reached(module: nn.Module, args: Any, output: Any) -> None:
            caught.append(output)
            # A layer that the model calls several times (ALBERT's) is done when the stack is.
            if len(self._items) > 1:
                raise _Reached

        hook = self._items[(layers or self.layers) - 1].register_forward_hook(reached)
        try:
            with torch.no_grad(), self.execution.autocast():
                self._model(**batch)
        except _Reached:
            pass
        finally:
            hook.remove()
        return caught[-1]

    def check(self, features: Features) -> SplitCheck:
        """Try it on a few examples of different lengths; leaves the model as it was, in eval mode."""
        cuda = [self.execution.device] if self.execution.device.startswith("cuda") else []
        with torch.random.fork_rng(devices=cuda):  # a run draws the same numbers, checked or not
            return self._check(features)

    def _check(self, features: Features) -> SplitCheck:
        order = np.argsort(features.lengths, kind="stable")
        rows = order[np.linspace(0, len(order) - 1, min(CHECKED_ROWS, len(order))).astype(int)]
        batch = {name: tensor.to(self.execution.device) for name, tensor in features.collate(rows).items()}
        pop_labels(self._model, batch)
        train_mode(self._model, self._frozen)
        in_training = hidden_state(self.hidden_states(batch))
        self._model.eval()
        started = time.perf_counter()
        output = self.hidden_states(batch)
        seconds = (time.perf_counter() - started) / (len(rows) * int(features.lengths[rows].max()))
        hidden, rest = hidden_state(output), output[1:] if isinstance(output, tuple) else None
        if any(isinstance(part, torch.Tensor) for part in rest or ()):
            return SplitCheck("its layers hand on more than a hidden state")
        shape = () if features.ragged else tuple(hidden.shape[1:])
        vectors, texts = flat(hidden, features, batch), texts_of(batch)
        mask = places(batch) if features.ragged else torch.ones(len(rows), 1)
        mask = mask.to(hidden.device).bool()
        if vectors.ndim != 3 or vectors.shape[:2] != mask.shape:
            return SplitCheck("its layers do not return one vector a token")
        if not torch.equal(flat(in_training, features, batch)[mask], vectors[mask]):
            return SplitCheck("dropout acts before the end of its frozen layers")
        whole = self._logits(batch)
        kept = (vectors * mask[..., None]).to(self.storage_dtype)
        # Embeddings too, unless something else reads them: DeBERTa's convolution does, after the first layer.
        for skipped in dict.fromkeys((self._skippable(hidden, batch), ())):
            verdict = SplitCheck("", "all", seconds, vectors.shape[-1], shape, texts, hidden.dtype, rest, skipped)
            if self._agrees(verdict, {**batch, PREFIX: kept}, whole):
                break
        else:
            return SplitCheck("split in two it computes something else")
        if not features.ragged:
            return verdict
        tokens = self._tokens_read(verdict, batch, kept)
        if tokens != "all":
            one = {name: tensor.to(hidden.device) for name, tensor in features.only(tokens).collate(rows).items()}
            pop_labels(self._model, one)
            at = mask.sum(1) - 1 if tokens == "last" else mask.sum(1) * 0
            one[PREFIX] = kept[torch.arange(len(rows), device=hidden.device), at][:, None]
            if self._agrees(verdict, one, whole):
                return replace(verdict, tokens=tokens)
        return verdict

    def install(self, verdict: SplitCheck) -> None:
        """Have the frozen part return the kept hidden states of a batch that brings them (`PREFIX`)."""

        def skip(module: nn.Module, rest: tuple[Any, ...] | None) -> None:
            compute = module.forward

            def forward(*args: Any, **keywords: Any) -> Any:
                if self._kept is None:
                    return compute(*args, **keywords)
                kept = self._kept.to(verdict.dtype)
                if verdict.shape:
                    kept = kept.view(-1, *verdict.shape)
                if verdict.texts > 1:
                    kept = kept.unflatten(2, (verdict.texts, -1)).transpose(1, 2).flatten(0, 1)
                return kept if rest is None else (kept, *rest)

            module.forward = forward
            self._undo.append(lambda: delattr(module, "forward"))

        for layer in self._items[: self.layers]:
            skip(layer, verdict.rest)
        for name in verdict.skipped:
            skip(self._model.get_submodule(name), None)

        def take(model: nn.Module, args: Any, keywords: dict[str, Any]) -> Any:
            self._kept = keywords.pop(PREFIX, None)
            return args, keywords

        def forget(model: nn.Module, args: Any, output: Any) -> None:
            self._kept = None  # a model that writes calls its layers by itself

        self._undo.append(self._model.register_forward_pre_hook(take, with_kwargs=True).remove)
        self._undo.append(self._model.register_forward_hook(forget).remove)

    def remove(self) -> None:
        """Make the model an ordinary one again."""
        while self._undo:
            self._undo.pop()()
        self._kept = None

    def _skippable(self, hidden: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
        """Names of the modules before the layers whose output looks like a hidden state (embeddings)."""
        before, _ = neighbor_modules(self._model, self._stack)
        alike: dict[int, bool] = {}

        def look(module: nn.Module, args: Any, output: Any) -> None:
            alike[id(module)] = isinstance(output, torch.Tensor) and output.shape == hidden.shape

        hooks = [module.register_forward_hook(look) for module in before]
        self.hidden_states(batch)
        for hook in hooks:
            hook.remove()
        return tuple(name for name, module in self._model.named_modules() if alike.get(id(module)))

    def _logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        with torch.no_grad(), self.execution.autocast():
            logits = logits_of(self._model(**batch)).float()
        # Of logits a token, what padding got is anything; those of a decoder are of other tokens.
        mask = batch["attention_mask"].bool() if "attention_mask" in batch else None
        return logits[mask] if mask is not None and logits.shape[:2] == mask.shape else logits

    def _agrees(self, verdict: SplitCheck, batch: Mapping[str, torch.Tensor], whole: torch.Tensor) -> bool:
        self.install(verdict)
        try:
            split = self._logits(batch)
        finally:
            self.remove()
        allowed = TOLERANCE[self.execution.dtype] * float(whole.abs().max())
        return split.shape == whole.shape and float((split - whole).abs().max()) <= allowed

    def _tokens_read(self, verdict: SplitCheck, batch: Mapping[str, torch.Tensor], kept: torch.Tensor) -> Tokens:
        """Whose hidden states the logits depend on, by their gradient: with all layers frozen often one token's."""
        leaf = kept.float().requires_grad_()
        self.install(verdict)
        try:
            with torch.enable_grad(), self.execution.autocast():
                logits = logits_of(self._model(**{**batch, PREFIX: leaf})).float()
        finally:
            self.remove()
        # A weight of its own for each logit: the gradient of a plain sum could cancel out.
        weights = torch.arange(1, logits.numel() + 1, device=logits.device, dtype=logits.dtype)
        (gradient,) = torch.autograd.grad((logits.flatten() * weights).sum(), leaf)
        read = gradient.abs().sum(-1) > 0
        last = places(batch).sum(1, keepdim=True) - 1
        columns = torch.arange(read.shape[1], device=read.device)
        if not bool((read & (columns != 0)).any()):
            return "first"
        if not bool((read & (columns != last)).any()):
            return "last"
        return "all"


def flat(hidden: torch.Tensor, features: Features, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Hidden states as they are kept, [inputs, vectors, width]: a vector a token, or all of an input as one.

    Where an input is several texts, the vectors of all at one place are one.
    """
    if not features.ragged:
        return hidden.flatten(1)[:, None]
    texts = texts_of(batch)
    return hidden.unflatten(0, (-1, texts)).transpose(1, 2).flatten(2) if texts > 1 else hidden


def texts_of(batch: Mapping[str, torch.Tensor]) -> int:
    """How many texts an input is."""
    mask = batch.get("attention_mask", torch.empty(0))
    return mask.shape[1] if mask.ndim == 3 else 1


def places(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Which places of the inputs hold a token, [inputs, places]: where an input is several texts, one of any."""
    mask = batch.get("attention_mask", torch.empty(0))
    return mask.amax(1) if mask.ndim == 3 else mask
