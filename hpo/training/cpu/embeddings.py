"""Trains only the rows of the token embedding that the data uses: AdamW on all rows, at a fraction of its cost.

A dataset uses a few thousand of a model's 30,000 or 250,000 tokens. The other rows of the embedding matrix have no
gradient, so that their moments are zero and AdamW only applies weight decay: one factor for all of them. During
training the embedding holds the rows of the data's tokens, and `expand` restores the others, decayed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from hpo.training.batches.features import Features
from hpo.training.models.layers import token_embedding

# The smaller matrix pays for the look-up of its rows where at most this share of the vocabulary is used.
LARGEST_SHARE = 0.7


class TrimmedEmbedding:
    """A model's input embedding, reduced to the rows `used` until `expand`."""

    def __init__(self, embedding: nn.Embedding, used: torch.Tensor) -> None:
        self._embedding = embedding
        self._used = used
        self._full = embedding.weight.data
        self._padding = embedding.padding_idx
        index = torch.full((len(self._full),), -1, dtype=torch.int64, device=used.device)
        index[used] = torch.arange(len(used), device=used.device)
        embedding.weight = nn.Parameter(self._full[used])
        embedding.padding_idx = None if self._padding is None else int(index[self._padding])
        self._hook = embedding.register_forward_pre_hook(lambda module, args: (index[args[0]], *args[1:]))

    @property
    def weight(self) -> torch.Tensor:
        """The trained rows, of shape [used, width]."""
        return self._embedding.weight

    def expand(self, decay: float) -> None:
        """Restore the full matrix; rows of tokens that the data does not use are multiplied by `decay`."""
        full = self._full * decay
        full[self._used] = self._embedding.weight.data
        self._embedding.weight = nn.Parameter(full)
        self._embedding.padding_idx = self._padding
        self._hook.remove()


def trim_embedding(model: Any, features: list[Features], more: Sequence[int] = ()) -> TrimmedEmbedding | None:
    """Reduce `model`'s input embedding to the tokens of `features` and `more`; None where that fails or does not pay.

    It is not possible without token inputs, where the matrix is frozen or tied to another module's, where rows are not
    independent (`max_norm`), and for encoder-decoders, which may generate any token.
    """
    if "input_ids" not in features[0].columns or hasattr(model, "prepare_decoder_input_ids_from_labels"):
        return None
    embedding = token_embedding(model)
    if embedding is None or not _has_independent_rows(model, embedding):
        return None
    used = np.zeros(embedding.num_embeddings, dtype=bool)
    used[list(more)] = True
    for part in features:
        used[np.asarray(part.columns["input_ids"][0])] = True
        used[part.pad_values["input_ids"]] = True
    if embedding.padding_idx is not None:
        used[embedding.padding_idx] = True
    if used.mean() > LARGEST_SHARE:
        return None
    return TrimmedEmbedding(embedding, torch.from_numpy(np.flatnonzero(used)).to(embedding.weight.device))


def _has_independent_rows(model: Any, embedding: Any) -> bool:
    """Return whether the embedding is trained, and each row by the tokens of its index alone."""
    if type(embedding).forward is not nn.Embedding.forward or embedding.max_norm or embedding.sparse:
        return False
    owners = [m for m in model.modules() for p in m.parameters(recurse=False) if p is embedding.weight]
    return len(owners) == 1 and bool(embedding.weight.requires_grad)
