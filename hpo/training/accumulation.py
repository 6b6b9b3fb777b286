"""The gradient of a whole batch, added up over micro-batches that fit in memory."""

from typing import Any

import torch
from torch import nn

from hpo.tasks.base import Task
from hpo.training.batches.batching import micro_batches
from hpo.training.batches.features import Features, Indices, pop_labels
from hpo.training.execution import Execution
from hpo.training.memory.out_of_memory import does_not_fit, is_out_of_memory, release


class MicroBatchTooLarge(Exception):
    """So many examples (`rows`) at once do not fit in memory."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.rows = rows


class Accumulation:
    """Forward and backward passes of one run's model. `execution` tells, and follows, what fits."""

    def __init__(self, model: nn.Module, task: Task, label_smoothing: float, execution: Execution) -> None:
        self.model = model
        self.execution = execution
        self._task = task
        self._label_smoothing = label_smoothing
        if execution.checkpoint_activations:
            checkpoint_activations(model)

    def gradient(self, features: Features, rows: Indices) -> torch.Tensor:
        """Add the gradient of the batch's mean loss to the parameters'; returns the loss summed over its examples.

        It stays on the device: to read it is to wait for all that a GPU has been told to do.

        Where a micro-batch does not fit, the batch begins again with halves of it, and where one example does not fit,
        without keeping what its layers compute. Raises `OutOfMemory` where that does not suffice either.
        """
        while True:
            try:
                return self.attempt(features, rows)
            except MicroBatchTooLarge as error:
                tried = error.rows
            if tried > 1:
                self.use_micro_batch(tried // 2)
            elif not self.use_checkpointing():
                raise does_not_fit(int(features.lengths.max()))

    def attempt(self, features: Features, rows: Indices) -> torch.Tensor:
        """One try of `gradient`. Raises `MicroBatchTooLarge`, with no gradient left, where memory does not suffice."""
        micro_batch = self.execution.micro_batch or len(rows)
        parts = micro_batches(rows, features.lengths, micro_batch, self.execution.training_tokens)
        batches = [features.collate(part) for part in parts]
        count = sum(self._task.target_count(batch["labels"]) for batch in batches)
        total, done = torch.zeros((), device=self.execution.device), 0
        try:
            for batch in batches:
                total += self._add(batch, count)
                done += 1
            return total * len(rows)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Only here, past the exception and the activations that it held, is their memory free again.
        self.model.zero_grad(set_to_none=True)
        release(self.execution.device)
        raise MicroBatchTooLarge(len(parts[done]))

    def _add(self, part: dict[str, torch.Tensor], count: float) -> torch.Tensor:
        batch = {name: tensor.to(self.execution.device, non_blocking=True) for name, tensor in part.items()}
        labels = pop_labels(self.model, batch)
        with self.execution.autocast():
            logits = self._task.logits(self.model, batch)
        loss = self._task.loss(logits.float(), labels, self._label_smoothing) / count
        loss.backward()
        return loss.detach()

    def use_micro_batch(self, rows: int) -> None:
        """From now on at most `rows` examples at once."""
        self.execution = self.execution.with_micro_batch(rows)

    def use_checkpointing(self) -> bool:
        """From now on compute again what would be kept; False where that is so already, or the model cannot."""
        if self.execution.checkpoint_activations or not checkpoint_activations(self.model):
            return False
        self.execution = self.execution.with_checkpoint_activations()
        return True


def checkpoint_activations(model: Any) -> bool:
    """Have each layer keep its input alone and compute the rest again in the backward pass (Chen et al., 2016).

    The same numbers in less memory, for a third more time. Returns False where the model does not know how.
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        return False
    # The newer of its two names, where the older one warns.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    return True
