"""Word dropout: augments texts by hiding other words in each epoch, sampled from the run's seed and the epoch."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from hpo.errors import ModelError
from hpo.training.batches.features import Features


def mask_token(tokenizer: Any) -> int:
    """Return the token that replaces a hidden word: mask or unknown. Raises `ModelError` where there is neither."""
    special = (getattr(tokenizer, f"{name}_token_id", None) for name in ("mask", "unk"))
    # GPT-2's unknown token is its end-of-text token.
    found = next((token for token in special if token not in (None, getattr(tokenizer, "eos_token_id", None))), None)
    if found is None:
        raise ModelError("word_dropout: its tokenizer has no mask token and no unknown token to replace hidden words.")
    return int(found)


def drop_words(
    features: Features, probability: float, hidden: int, special: Iterable[int], seed: int, epoch: int
) -> Features:
    """Return the inputs with each token replaced by `hidden` with `probability` (Iyyer et al., 2015).

    Tokens in `special` are never hidden; lengths and labels stay. Deterministic in (seed, epoch).
    """
    values, offsets = features.columns["input_ids"]
    values = np.asarray(values)
    chosen = np.random.default_rng([seed, epoch, 1]).random(values.shape) < probability
    chosen &= ~np.isin(values, list(special))
    return replace(features, columns={**features.columns, "input_ids": (np.where(chosen, hidden, values), offsets)})
