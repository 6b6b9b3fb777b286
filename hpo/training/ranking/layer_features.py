"""What a model's layers make of examples before any training: one vector an example and layer, to rank models by."""

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
from hpo.training.models.layers import hidden_state, stack_items

Floats = NDArray[np.float32]


class _Reached(Exception):
    """The last layer has answered: the head is not needed."""


@dataclass(frozen=True)
class LayerFeatures:
    """Vectors of shape [n, width] for each layer, from the bottom; n labels; which example each vector is of.

    A vector is the mean over an input's tokens, patches or moments; where each token has a label, one labelled token's.
    """

    layers: list[Floats]
    labels: NDArray[Any]
    examples: Indices


def extract_layer_features(
    candidate: Candidate, features: Features, places: Indices, execution: Execution
) -> LayerFeatures:
    """Pass the inputs at `places` once through a model's layers, as it was pre-trained. Raises `OutOfMemory`.

    Nothing is trained and nothing is kept on disk: the pass over 1,000 short texts takes no longer than reading it.
    """
    model = candidate.model if execution.device == "cpu" else candidate.build(0).to(execution.device)
    model.eval()
    lengths = features.lengths[places]

    def run(tokens: int) -> list[LayerFeatures]:
        return [
            _states(model, candidate, features, places, batch, execution)
            for batch in evaluation_batches(lengths, tokens)
        ]

    longest = int(lengths.max())
    tokens = min(execution.evaluation_tokens, _most_tokens(model, candidate, features, execution))
    if tokens < longest:
        raise does_not_fit(longest)
    parts = with_fewer_tokens(run, tokens, longest, execution.device)
    examples = np.concatenate([part.examples for part in parts])
    order = np.argsort(examples, kind="stable")
    layers = [np.concatenate(layer)[order] for layer in zip(*(part.layers for part in parts), strict=True)]
    return LayerFeatures(layers, np.concatenate([part.labels for part in parts])[order], examples[order])


def _most_tokens(model: nn.Module, candidate: Candidate, features: Features, execution: Execution) -> int:
    """So many that a layer's widest numbers, those before, after and within an activation, take half of what is free.

    A CPU gives no error: the process that takes too much is killed, and with it the search.
    """
    if execution.device != "cpu" or "input_ids" not in features.columns:
        return execution.evaluation_tokens
    widest = max(max(p.shape) for item in stack_items(model, candidate.stack) for p in item.parameters())
    return int(max(0.0, free_bytes(1)) / 2 / (3 * 4 * widest))


def _states(
    model: nn.Module, candidate: Candidate, features: Features, places: Indices, batch: Indices, execution: Execution
) -> LayerFeatures:
    """Those of one batch, which are the inputs at `places[batch]`."""
    inputs = {name: tensor.to(execution.device) for name, tensor in features.collate(places[batch]).items()}
    labels = pop_labels(model, inputs)
    chosen = None if features.labels is not None else labels != IGNORE_INDEX
    layers: list[Floats] = []
    items = list(stack_items(model, candidate.stack))

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        hidden = hidden_state(output).float()
        vectors = mean_pool(model, hidden, inputs) if chosen is None else hidden[chosen]
        layers.append(vectors.cpu().numpy())
        # A layer that the model calls several times (ALBERT's) is done when the stack is.
        if module is items[-1] and len(items) > 1:
            raise _Reached

    hooks = [item.register_forward_hook(keep) for item in items]
    try:
        with torch.inference_mode(), execution.autocast():
            model(**inputs)
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    if chosen is None:
        return LayerFeatures(layers, labels.cpu().numpy(), batch)
    return LayerFeatures(layers, labels[chosen].cpu().numpy(), np.repeat(batch, chosen.sum(1).cpu().numpy()))


def mean_pool(model: Any, hidden: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The mean of an input's vectors, of shape [inputs, width]; padding does not count.

    Convolutions answer with the width before the places, [inputs, width, height, breadth].
    """
    if hidden.ndim != 3:
        return hidden.flatten(2).mean(2) if hidden.ndim > 3 else hidden
    mask = inputs.get("attention_mask")
    if mask is not None and mask.shape != hidden.shape[:2] and hasattr(model, "_get_feature_vector_attention_mask"):
        mask = model._get_feature_vector_attention_mask(hidden.shape[1], mask)  # of sound: of moments, not of samples
    if mask is None or mask.shape != hidden.shape[:2]:
        return hidden.mean(1)
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp_min(1)
