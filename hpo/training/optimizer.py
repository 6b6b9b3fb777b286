"""Builds the optimizer, with weight decay and learning rates by parameter group, and the learning-rate schedule."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from hpo.config.trial_params import TrialParams


def build_optimizer(model: nn.Module, params: TrialParams, depths: Mapping[int, int] | None = None) -> Any:
    """Build AdamW (Loshchilov & Hutter, 2019) or Adafactor (Shazeer & Stern, 2018) for the trainable parameters.

    Biases and normalization layers have no weight decay. With `depths` (`find_depths`) a parameter's rate is
    `learning_rate` times `layer_decay` for each layer above it, as in ELECTRA (Clark et al., 2020) and BEiT (Bao et
    al., 2022): the head has the full rate, the last of L layers layer_decay times it, the embeddings
    layer_decay^(L + 1) times it.
    """
    decayed = set(_decayed_names(model))
    top = max(depths.values()) if depths else 0
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for decays in (True, False):
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and (name in decayed) == decays:
                above = top - depths[id(parameter)] if depths else 0
                groups.setdefault((above, decays), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "lr": params.learning_rate * params.layer_decay**above,
            "weight_decay": params.weight_decay if decays else 0.0,
        }
        for (above, decays), parameters in groups.items()
    ]
    if params.optimizer == "adafactor":
        from transformers import Adafactor

        # As in Trainer: an absolute rate as for AdamW, not relative to a matrix's scale or the step.
        return Adafactor(settings, lr=params.learning_rate, scale_parameter=False, relative_step=False)
    return torch.optim.AdamW(settings, lr=params.learning_rate, fused=True)


def decay_factor(optimizer: Any, parameter: torch.Tensor) -> float:
    """Return the factor by which the weight decay of the optimizer's next step multiplies `parameter`."""
    group = next(group for group in optimizer.param_groups if any(p is parameter for p in group["params"]))
    return 1 - group["lr"] * group["weight_decay"]


def _decayed_names(model: nn.Module) -> list[str]:
    """Return the names of the parameters with weight decay: no biases, no normalization layers (Trainer's rule)."""
    from transformers.pytorch_utils import ALL_LAYERNORM_LAYERS
    from transformers.trainer_pt_utils import get_parameter_names

    patterns = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
    names: list[str] = get_parameter_names(model, ALL_LAYERNORM_LAYERS, patterns)
    return names


def build_scheduler(optimizer: torch.optim.Optimizer, params: TrialParams, total_steps: int) -> Any:
    """Build the learning-rate schedule over `total_steps` optimizer steps, warmup included.

    `warmup_stable_decay` decays over the last fifth of the steps.
    """
    from transformers import get_scheduler

    warmup = round(params.warmup_ratio * total_steps)
    specific = {}
    if params.lr_scheduler == "warmup_stable_decay":
        specific = {"num_decay_steps": max(1, total_steps // 5)}
    return get_scheduler(params.lr_scheduler, optimizer, warmup, total_steps, scheduler_specific_kwargs=specific)
