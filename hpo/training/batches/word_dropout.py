"""Augmentation of texts: in each epoch some words are hidden, drawn from the run's seed and the epoch's number."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from hpo.errors import ModelError
from hpo.training.batches.features import Features


def mask_token(tokenizer: Any) -> int:
    """The token that stands for a hidden word: the mask, or the unknown token. Raises `ModelError` without either."""
    special = (getattr(tokenizer, f"{name}_token_id", None) for name in ("mask", "unk"))
    # GPT-2's unknown token is the one that ends a text.
    found = next((token for token in special if token not in (None, getattr(tokenizer, "eos_token_id", None))), None)
    if found is None:
        raise ModelError("word_dropout: its processor has no token that could stand for a hidden word.")
    return int(found)


def drop_words(
    features: Features, probability: float, hidden: int, special: Iterable[int], seed: int, epoch: int
) -> Features:
    """The same inputs, each token hidden with `probability` (word dropout: Iyyer et al., 2015), special tokens never.

    An input keeps its length and its labels. The same for the same seed and epoch.
    """
    values, offsets = features.columns["input_ids"]
    values = np.asarray(values)
    drawn = np.random.default_rng([seed, epoch, 1]).random(values.shape) < probability
    drawn &= ~np.isin(values, list(special))
    return replace(features, columns={**features.columns, "input_ids": (np.where(drawn, hidden, values), offsets)})
