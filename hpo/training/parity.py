"""Compares the logits of inputs in a batch, alone, and padded as transformers alone pads them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from hpo.tasks.base import Task
from hpo.training.batches.features import Batch, Features, Indices, pop_labels

# Two passes over an input in float32 differ by 1e-6 to 1e-4 of the largest logit, by the shapes of their batches. A
# batch padded on the wrong side, or by a token that the model reads, differs by a fraction of the logits' range.
OF_RANGE, OF_LARGEST = 0.02, 1e-3
KEPT = 1000  # outputs per token: a vocabulary of 150,000 would take 300 MB for 512 tokens


def inputs_of(model: Any, features: Features, rows: Indices, device: Any) -> Batch:
    """Return the inputs `rows` as in training and evaluation, without labels, on `device`."""
    batch = features.collate(rows)
    pop_labels(model, batch)
    return {name: tensor.to(device) for name, tensor in batch.items()}


def logits_of(task: Task, model: Any, batch: Batch) -> list[torch.Tensor]:
    """Return the logits of each input on the CPU, computed in float32, in eval mode."""
    model.eval()
    with torch.inference_mode(), _exact():
        return list(task.logits(model, batch)[..., :KEPT].float().cpu())


def alone(task: Task, model: Any, features: Features, rows: Indices, device: Any) -> list[torch.Tensor]:
    """Return the logits of each of `rows`, each in a batch of its own."""
    batches = (inputs_of(model, features, np.array([row]), device) for row in rows)
    return [logits_of(task, model, batch)[0] for batch in batches]


def repadded(batch: Batch, tokenizer: Any) -> Batch:
    """Return a batch of texts as `tokenizer` pads it by itself, which is how pipelines pad."""
    shape, mask = batch["input_ids"].shape, batch["attention_mask"].flatten(0, -2).bool().cpu()
    names = [name for name in ("input_ids", "token_type_ids") if name in batch]
    flat = {name: batch[name].flatten(0, -2).cpu() for name in names}
    lists = {name: [row[kept].tolist() for row, kept in zip(flat[name], mask, strict=True)] for name in names}
    tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = (
        True  # that encoding and padding at once is faster
    )
    padded = tokenizer.pad(lists, return_tensors="pt")
    device = batch["input_ids"].device
    return batch | {name: padded[name].view(*shape[:-1], -1).to(device) for name in (*names, "attention_mask")}


def difference(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> str:
    """Return which input's logits differ by more than rounding, and by how much; an empty string where none does.

    Of two inputs of different padded lengths, the positions that both have are compared.
    """
    pairs = []
    for one, other in zip(expected, found, strict=True):
        both = tuple(slice(min(sizes)) for sizes in zip(one.shape, other.shape, strict=True))
        pairs.append((one[both].double(), other[both].double()))
    all_expected = torch.cat([one.flatten() for one, _ in pairs])
    if not all_expected.isfinite().all():
        return ""  # evaluated as such
    spread, largest = all_expected.max() - all_expected.min(), all_expected.abs().max()
    allowed = float(OF_RANGE * spread + OF_LARGEST * largest)
    worst = [float((one - other).abs().max()) for one, other in pairs]
    number = int(np.argmax(worst))
    if worst[number] <= allowed:
        return ""
    return f"logits differ by up to {worst[number]:.3g} (rounding: below {allowed:.2g}), most in input {number + 1}"


@contextmanager
def _exact() -> Iterator[None]:
    """Compute products of float32 exactly on GPUs: layers add up the rounding of TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
