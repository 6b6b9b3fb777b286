"""Extracts per-layer features of a pre-trained model, one vector an input and layer, to rank models by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hpo.training.batches.batching import evaluation_batches
from hpo.training.batches.features import IGNORE_INDEX, Features, Indices, pop_labels
from hpo.training.execution import Execution
from hpo.training.memory.micro_batch import free_bytes
from hpo.training.memory.out_of_memory import does_not_fit, with_fewer_tokens
from hpo.training.models.candidate import Candidate
from hpo.training.models.layers import hidden_state, layer_parts, stack_items

Floats = NDArray[np.float32]


class _Reached(Exception):
    """The last layer has returned: the head is not needed."""


@dataclass(frozen=True)
class LayerFeatures:
    """Vectors of shape [n, width] for each layer, bottom first; their n labels; the index of each vector's input.

    A vector is the mean over an input's tokens, patches or frames; where tokens have labels, that of a labeled token.
    """

    layers: list[Floats]
    labels: NDArray[Any]
    inputs: Indices


def extract_layer_features(
    candidate: Candidate, features: Features, indices: Indices, execution: Execution
) -> LayerFeatures:
    """Pass the inputs at `indices` through a pre-trained model's layers once. Raises `OutOfMemory`.

    `LayerFeatures.inputs` are positions in `indices`. Nothing is trained or stored on disk.
    """
    model = candidate.model if execution.device == "cpu" else candidate.build(0).to(execution.device)
    model.eval()
    lengths = features.lengths[indices]

    def run(tokens: int) -> list[LayerFeatures]:
        return [
            _extract_batch(model, candidate, features, indices, batch, execution)
            for batch in evaluation_batches(lengths, tokens)
        ]

    longest = int(lengths.max())
    tokens = min(execution.evaluation_tokens, _most_tokens(model, candidate, features, execution))
    if tokens < longest:
        raise does_not_fit(longest)
    parts = with_fewer_tokens(run, tokens, longest, execution.device)
    inputs = np.concatenate([part.inputs for part in parts])
    order = np.argsort(inputs, kind="stable")
    layers = [np.concatenate(layer)[order] for layer in zip(*(part.layers for part in parts), strict=True)]
    return LayerFeatures(layers, np.concatenate([part.labels for part in parts])[order], inputs[order])


def _most_tokens(model: nn.Module, candidate: Candidate, features: Features, execution: Execution) -> int:
    """Return how many tokens take half of the free memory of a CPU.

    A layer's widest numbers are counted three times: before, after and within an activation. A CPU raises no error:
    a process that takes too much is killed, and the study's search with it.
    """
    if execution.device != "cpu" or "input_ids" not in features.columns:
        return execution.evaluation_tokens
    widest = max(
        max(p.shape) for layer in layer_parts(model, candidate.stack) for part in layer for p in part.parameters()
    )
    return int(max(0.0, free_bytes(1)) / 2 / (3 * 4 * widest))


def _extract_batch(
    model: nn.Module, candidate: Candidate, features: Features, indices: Indices, batch: Indices, execution: Execution
) -> LayerFeatures:
    """Extract the features of one batch: the inputs at `indices[batch]`."""
    inputs = {name: tensor.to(execution.device) for name, tensor in features.collate(indices[batch]).items()}
    labels = pop_labels(model, inputs)
    labeled = None if features.labels is not None else labels != IGNORE_INDEX
    layers: list[Floats] = []
    items = list(stack_items(model, candidate.stack))

    def store(module: nn.Module, args: Any, output: Any) -> None:
        hidden = hidden_state(output).float()
        vectors = mean_pool(model, hidden, inputs) if labeled is None else hidden[labeled]
        layers.append(vectors.cpu().numpy())
        # A layer that the model calls several times (ALBERT's) has returned its last output when the stack has.
        if module is items[-1] and len(items) > 1:
            raise _Reached

    hooks = [item.register_forward_hook(store) for item in items]
    try:
        with torch.inference_mode(), execution.autocast():
            model(**inputs)
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    if labeled is None:
        return LayerFeatures(layers, labels.cpu().numpy(), batch)
    return LayerFeatures(layers, labels[labeled].cpu().numpy(), np.repeat(batch, labeled.sum(1).cpu().numpy()))


def mean_pool(model: Any, hidden: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the mean of each input's vectors without padding, of shape [inputs, width].

    `hidden` is [inputs, positions, width]; of convolutions, [inputs, channels, height, width].
    """
    if hidden.ndim != 3:
        return hidden.flatten(2).mean(2) if hidden.ndim > 3 else hidden
    mask = inputs.get("attention_mask")
    if mask is not None and mask.shape != hidden.shape[:2] and hasattr(model, "_get_feature_vector_attention_mask"):
        mask = model._get_feature_vector_attention_mask(hidden.shape[1], mask)  # of audio: from samples to frames
    if mask is None or mask.shape != hidden.shape[:2]:
        return hidden.mean(1)
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp_min(1)
