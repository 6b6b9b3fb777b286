"""The inference loop of `Task.predict`: inputs sorted by length, batched, and results in the inputs' order."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from datasets import Dataset

if TYPE_CHECKING:
    import torch

    from hpo.tasks.objective import Objective

T = TypeVar("T")
Batch = Mapping[str, "torch.Tensor"]


def run_inference(
    model: Any,
    lengths: Sequence[int],
    collate: Callable[[list[int]], Batch],
    forward: Callable[[Batch, list[int]], Sequence[T]],
    batch_size: int,
) -> list[T]:
    """Run `model` in eval mode, without gradients, on its device; return one result per input, in the inputs' order.

    `lengths` are the inputs' sizes, in any unit. `collate` builds the batch of some indices, `forward` receives it on
    the model's device, with the indices, and returns a result for each.
    """
    import torch

    # Longest first: batches of similar length hold little padding, and a batch that is too large fails at once.
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    results: dict[int, T] = {}
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = {name: tensor.to(model.device) for name, tensor in collate(indices).items()}
            results.update(zip(indices, forward(batch, indices), strict=True))
    return [results[index] for index in range(len(lengths))]


def run_encoded(
    task: "Objective",
    model: Any,
    tokenizer: Any,
    encoded: Dataset,
    reduce: "Callable[[torch.Tensor, list[int]], Sequence[T]]",
    batch_size: int,
) -> list[T]:
    """Run `model` over encoded texts. `reduce` turns a batch's float32 logits into one result per row of `indices`."""
    from transformers import DataCollatorWithPadding

    given = [name for name in encoded.column_names if name not in ("length", "labels") and not name.startswith("_")]
    rows = encoded.select_columns(given).to_list()
    # Without a padding token only single rows can be read (a causal model that hpo did not train).
    batch_size = batch_size if tokenizer.pad_token_id is not None else 1
    pad = DataCollatorWithPadding(tokenizer, padding=batch_size > 1)

    def collate(indices: list[int]) -> Batch:
        return task.prepare_batch(dict(pad([rows[index] for index in indices])), tokenizer)

    def forward(batch: Batch, indices: list[int]) -> Sequence[T]:
        return reduce(task.logits(model, batch).float(), indices)

    return run_inference(model, [len(row["input_ids"]) for row in rows], collate, forward, batch_size)
