"""Training only the word embeddings that a run can meet: exactly AdamW, at a fraction of its cost.

A data set uses a few thousand of a model's 30,000 or 250,000 tokens. The other rows of the embedding matrix get no
gradient, so that their moments stay zero and AdamW does nothing to them but decay: one number for all of them. While a
run trains, the embedding holds the rows of its tokens alone, and `expand` puts the others back, decayed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from hpo.training.batches.features import Features

# Below this share of the vocabulary in use, the smaller matrix pays for the look-up of its rows.
WORTHWHILE = 0.7


class TrimmedEmbedding:
    """A model's input embedding, cut to the tokens of `features` until `expand`."""

    def __init__(self, embedding: nn.Embedding, used: torch.Tensor) -> None:
        self._embedding = embedding
        self._used = used
        self._whole = embedding.weight.data
        self._padding = embedding.padding_idx
        places = torch.full((len(self._whole),), -1, dtype=torch.int64, device=used.device)
        places[used] = torch.arange(len(used), device=used.device)
        embedding.weight = nn.Parameter(self._whole[used])
        embedding.padding_idx = None if self._padding is None else int(places[self._padding])
        self._hook = embedding.register_forward_pre_hook(lambda module, args: (places[args[0]], *args[1:]))

    @property
    def weight(self) -> torch.Tensor:
        """What is trained: the rows in use."""
        return self._embedding.weight

    def expand(self, decay: float) -> None:
        """Put the whole matrix back; rows without a token in the data are `decay` times what they were."""
        whole = self._whole * decay
        whole[self._used] = self._embedding.weight.data
        self._embedding.weight = nn.Parameter(whole)
        self._embedding.padding_idx = self._padding
        self._hook.remove()


def trim_embedding(model: Any, features: list[Features], more: Sequence[int] = ()) -> TrimmedEmbedding | None:
    """Cut `model`'s input embedding to the tokens of `features` and `more`; None where that fails or does not pay.

    It cannot where no tokens are read, the matrix is frozen or tied to another module's, or where rows are not
    independent (`max_norm`); nor where a decoder writes: any token may be next.
    """
    if "input_ids" not in features[0].columns or hasattr(model, "prepare_decoder_input_ids_from_labels"):
        return None
    embedding = model.get_input_embeddings()
    if type(embedding).forward is not nn.Embedding.forward or embedding.max_norm or embedding.sparse:
        return None
    owners = [m for m in model.modules() for p in m.parameters(recurse=False) if p is embedding.weight]
    if len(owners) != 1 or not embedding.weight.requires_grad:
        return None
    seen = np.zeros(embedding.num_embeddings, dtype=bool)
    seen[list(more)] = True
    for part in features:
        seen[np.asarray(part.columns["input_ids"][0])] = True
        seen[part.pad_values["input_ids"]] = True
    if embedding.padding_idx is not None:
        seen[embedding.padding_idx] = True
    if seen.mean() > WORTHWHILE:
        return None
    return TrimmedEmbedding(embedding, torch.from_numpy(np.flatnonzero(seen)).to(embedding.weight.device))
