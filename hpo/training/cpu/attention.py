"""Attention for training on a CPU: plain matrix products, faster there than torch's fused kernels.

Forward and backward pass of MiniLM's attention on 16 × 128 tokens in bf16 take 11 ms on 2 cores. torch's
`scaled_dot_product_attention` takes 33 ms with dropout (it computes in float32) and 30 ms without (its backward pass is
slow). In float32: 18, 34 and 13 ms.
"""

from typing import Any

import torch
from torch import nn

from hpo.training.cpu.dropout import BitDropout

NAME = "hpo_cpu"
FUSED = "sdpa"


def attention_kernel(model: Any, device: str) -> str | None:
    """Return the name of the attention implementation for training `model` on `device`; None where it has no choice."""
    given: str | None = getattr(model.config, "_attn_implementation", None)
    return NAME if given == FUSED and device == "cpu" else given


def use_cpu_attention(model: Any) -> None:
    """Replace `scaled_dot_product_attention` in a model on a CPU; a model with another implementation is unchanged."""
    if attention_kernel(model, "cpu") != NAME:
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, cpu_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def restore_attention(model: Any) -> None:
    """Undo `use_cpu_attention`."""
    if getattr(model.config, "_attn_implementation", None) == NAME:
        model.set_attn_implementation(FUSED)


def cpu_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention of [batch, heads, tokens, width] tensors; returns [batch, tokens, heads, width] and None.

    The signature is that of transformers' attention functions. Only measured cases are computed here: as many key as
    query heads, a boolean mask or none, in training, and in float32 only with dropout. torch computes the others.
    """
    if not _is_covered(module, query, key, attention_mask, dropout, more):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        fused: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return fused
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 if scaling is None else scaling), key.transpose(-1, -2))
    if attention_mask is not None:
        scores = scores.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
    weights = _dropped(scores.softmax(-1), dropout)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


def _is_covered(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float,
    more: dict[str, Any],
) -> bool:
    """Return whether `cpu_attention` computes such a call itself."""
    causal = more.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    plain = attention_mask is not None or not causal
    faster = query.requires_grad and (dropout > 0 or query.dtype == torch.bfloat16)
    special = any(more.get(name) is not None for name in ("position_bias", "cache", "softcap", "s_aux"))
    boolean = attention_mask is None or attention_mask.dtype == torch.bool
    return plain and faster and boolean and not special and key.shape[1] == query.shape[1]


def _dropped(weights: torch.Tensor, p: float) -> torch.Tensor:
    return BitDropout(p)(weights) if p > 0 else weights
