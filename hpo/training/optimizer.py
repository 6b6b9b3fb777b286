"""AdamW with decay where it belongs, and the learning-rate schedule."""

from typing import Any

import torch
from torch import nn

from hpo.core.trial import TrialParams


def build_optimizer(model: nn.Module, params: TrialParams) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, 2019) over what is trainable; no decay on biases and norms."""
    decayed = set(_decayed_names(model))
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in trainable if name in decayed], "weight_decay": params.weight_decay},
        {"params": [p for name, p in trainable if name not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=params.learning_rate, fused=True)


def _decayed_names(model: nn.Module) -> list[str]:
    """Weights of everything but normalisation layers; biases are never decayed (the rule of Trainer)."""
    from transformers.pytorch_utils import ALL_LAYERNORM_LAYERS
    from transformers.trainer_pt_utils import get_parameter_names

    patterns = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
    names: list[str] = get_parameter_names(model, ALL_LAYERNORM_LAYERS, patterns)
    return names


def build_scheduler(optimizer: torch.optim.Optimizer, params: TrialParams, total_steps: int) -> Any:
    """The schedule over `total_steps` optimizer steps, warm-up included."""
    from transformers import get_scheduler

    warmup = round(params.warmup_ratio * total_steps)
    specific = {}
    if params.lr_scheduler == "warmup_stable_decay":
        specific = {"num_decay_steps": max(1, total_steps // 5)}
    return get_scheduler(params.lr_scheduler, optimizer, warmup, total_steps, scheduler_specific_kwargs=specific)
