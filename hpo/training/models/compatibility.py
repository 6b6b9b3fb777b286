"""Holds a model, its checkpoint and its processor against each other when they are loaded, and aligns what differs."""

import inspect
import re
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from hpo.config.model_ref import ModelRef
from hpo.core.format import count
from hpo.errors import ModelError
from hpo.training.models.layers import find_heads, token_embedding

# Weights of the body that many checkpoints lack, and that fine-tuning may initialize: a pooler belongs to the head, and
# the others are read by pre-training objectives only.
_OPTIONAL = re.compile(r"(^|[._])(pooler|masked_spec_embed|mask_token|contact_head|lm_head)([._]|$)")
_SHOWN = 4


def check_new_weights(ref: ModelRef, model: Any, new: Collection[str]) -> None:
    """Raise `ModelError` where weights of the body are in `new`: the checkpoint lacks them, or has other shapes."""
    heads = tuple(f"{name}." for name in find_heads(model))
    loose = [
        name
        for name, _ in model.named_parameters()
        if name in new and not name.startswith(heads) and not _OPTIONAL.search(name)
    ]
    if loose:
        total = sum(1 for name, _ in model.named_parameters() if not name.startswith(heads))
        shown = ", ".join(loose[:_SHOWN]) + (", …" if len(loose) > _SHOWN else "")
        raise ModelError(
            f"{ref.label}: {count(len(loose), 'tensor')} of the {total} of its body would be random: its checkpoint "
            f"lacks them, or has them in another shape ({shown}). Only a head may be new. Check that config.json and "
            "the weights belong together, and that the architecture is the one that was pre-trained."
        )


def check_finite(ref: ModelRef, model: nn.Module) -> None:
    """Raise `ModelError` naming the first weight that holds NaN or infinity. A sum is enough: either stays in it."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter.detach().sum()):
            raise ModelError(f"{ref.label}: its weights hold NaN or infinity, in {name}. The file is damaged.")


def align_processor(ref: ModelRef, model: Any, processor: Any) -> None:
    """Set in place what the model needs of its tokenizer or image processor; it is saved with the final model.

    Raises `ModelError` where the tokenizer has tokens without an embedding, and for a head that reads padding.
    """
    if hasattr(model, "sequence_summary") and getattr(model.config, "summary_type", None) == "last":
        raise ModelError(
            f"{ref.label}: {type(model).__name__} classifies from the last position of a batch, which is padding after "
            "every text but the longest: hpo pads on the right. It is not supported here: choose another model."
        )
    if hasattr(processor, "get_vocab"):
        _check_embeddings(ref, model, processor)
        _drop_token_types(model, processor)
        _split_special_tokens(model, processor)
    elif getattr(model.config, "num_channels", 3) == 1 and len(getattr(processor, "image_mean", None) or ()) == 3:
        processor.image_mean = [sum(processor.image_mean) / 3]
        processor.image_std = [sum(processor.image_std) / 3]


def _check_embeddings(ref: ModelRef, model: Any, tokenizer: Any) -> None:
    """Replace a padding token that has no embedding; raise `ModelError` for ordinary tokens that have none."""
    table = token_embedding(model)
    if table is None:
        return
    rows = table.num_embeddings
    special = set(tokenizer.all_special_tokens)
    beyond = sorted((i, token) for token, i in tokenizer.get_vocab().items() if i >= rows and token not in special)
    if beyond:
        shown = ", ".join(repr(token) for _, token in beyond[:_SHOWN])
        raise ModelError(
            f"{ref.label}: its tokenizer has {count(len(beyond), 'token')} beyond the {rows} rows of the model's "
            f"embedding ({shown}). They do not belong together: name the model's own tokenizer, models: "
            f"[{{name: {ref.name}, processor: HUB_ID_OR_FOLDER}}], or resize the embedding and save the model."
        )
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= rows:
        # Under the attention mask any token can be used.
        known = [t for t in (tokenizer.eos_token, tokenizer.unk_token, tokenizer.sep_token) if t is not None]
        usable = [token for token in known if tokenizer.convert_tokens_to_ids(token) < rows]
        if not usable:
            raise ModelError(
                f"{ref.label}: its padding token {tokenizer.pad_token!r} is beyond the {rows} rows of the model's "
                "embedding, and no other special token can pad. Resize the embedding and save the model."
            )
        tokenizer.pad_token = usable[0]


def _drop_token_types(model: Any, tokenizer: Any) -> None:
    """Have no `token_type_ids` where the model's forward pass has none, or has a single type (RoBERTa's)."""
    names = list(tokenizer.model_input_names)
    if "token_type_ids" not in names:
        return
    accepted = inspect.signature(model.forward).parameters
    if "token_type_ids" in accepted and getattr(model.config, "type_vocab_size", None) != 1:
        return
    names.remove("token_type_ids")
    tokenizer.model_input_names = names
    tokenizer.init_kwargs["model_input_names"] = names


def _split_special_tokens(model: Any, tokenizer: Any) -> None:
    """Read special tokens that a user's text spells out as plain text, where the head reads the last `</s>`.

    BART's and T5's heads for classes raise where the inputs of a batch hold different numbers of it.
    """
    if getattr(model.config, "is_encoder_decoder", False) and hasattr(model, "classification_head"):
        tokenizer.split_special_tokens = True
        tokenizer.init_kwargs["split_special_tokens"] = True
