"""The inference loop of `Task.predict`, and the padding of batches, which training and prediction share."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from hpo.data.columns import column_values

if TYPE_CHECKING:
    import torch

    from hpo.tasks.objective import Objective

T = TypeVar("T")
Batch = Mapping[str, "torch.Tensor"]
Side = Literal["left", "right"]


def pad_batch(
    columns: Mapping[str, Sequence[NDArray[Any]] | NDArray[Any]], pad_values: Mapping[str, int], side: Side = "right"
) -> "dict[str, torch.Tensor]":
    """Return a batch of tensors [inputs, longest, …], given an array per input and column.

    `attention_mask` is 0 at padding; it is added unless it is a column, or no column is padded. A column that is one
    array has inputs of one shape. `pad_values` are by column, 0 by default. The tokenizer's `padding_side` is not
    read: labels and offsets count from the first token, so that all but the prompts of a decoder are padded on the
    right (F1 of tags by a tokenizer that pads on the left: 0.957 in evaluation, 0.211 in predictions padded by it).
    """
    import torch

    batch = {}
    for name, arrays in columns.items():
        if isinstance(arrays, np.ndarray):
            batch[name] = torch.from_numpy(_widened(arrays))
            continue
        sizes = np.array([len(array) for array in arrays])
        mask = np.arange(sizes.max())[None, :] < sizes[:, None]
        mask = mask[:, ::-1] if side == "left" else mask
        found = _widened(np.concatenate(arrays))
        padded = np.full((*mask.shape, *found.shape[1:]), pad_values.get(name, 0), dtype=found.dtype)
        padded[mask] = found
        batch[name] = torch.from_numpy(padded)
        if name != "labels" and "attention_mask" not in columns:
            batch["attention_mask"] = torch.from_numpy(mask.astype(np.int64))
    return batch


def _widened(values: NDArray[Any]) -> NDArray[Any]:
    """Return values in the type that models take: 16-bit floats as float32, tokens as int64, pixels as bytes."""
    if values.dtype == np.uint8:
        return values
    return values.astype(np.float32 if values.dtype.kind == "f" else np.int64)


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
    given = [name for name in encoded.column_names if name not in ("length", "labels") and not name.startswith("_")]
    rows = {name: [np.asarray(tokens, np.int64) for tokens in column_values(encoded, name)] for name in given}
    # Without a padding token only single rows can be read (a causal model that hpo did not train).
    batch_size = batch_size if tokenizer.pad_token_id is not None else 1
    pads = {"input_ids": tokenizer.pad_token_id or 0}

    def collate(indices: list[int]) -> Batch:
        batch = pad_batch({name: [arrays[index] for index in indices] for name, arrays in rows.items()}, pads)
        return task.prepare_batch(batch, tokenizer)

    def forward(batch: Batch, indices: list[int]) -> Sequence[T]:
        return reduce(task.logits(model, batch).float(), indices)

    return run_inference(model, [len(tokens) for tokens in rows["input_ids"]], collate, forward, batch_size)
