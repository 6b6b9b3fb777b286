"""The layer stack of any Hugging Face model, and freezing its bottom: no table of models.

The rule: the stack is the outermost `nn.ModuleList` with parameters inside the backbone (the encoder's, where the
model has one; the one with most parameters, where there are several). Frozen are all modules registered before
the stack and its first k items.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from hpo.core.errors import ModelError


@dataclass(frozen=True)
class LayerStack:
    """The stack's path in the model, e.g. `bert.encoder.layer`, and its number of layers."""

    path: str
    count: int


def find_stack(model: nn.Module) -> LayerStack:
    """Find the layer stack. Raises `ModelError` where a model has none."""
    backbone: Any = getattr(model, "base_model", model)
    if backbone is model and hasattr(model, "get_encoder"):
        backbone = model.get_encoder()
    encoder = backbone.get_encoder() if hasattr(backbone, "get_encoder") else None
    names = {id(module): name for name, module in model.named_modules()}
    lists = _outermost_lists(backbone)
    if isinstance(encoder, nn.Module) and encoder is not backbone:
        lists = _outermost_lists(encoder) or lists
    if not lists:
        raise ModelError(f"{type(model).__name__} has no stack of layers that could be frozen.")
    stack = max(lists, key=lambda module: sum(p.numel() for p in module.parameters()))
    return LayerStack(path=names[id(stack)], count=len(stack))


def _outermost_lists(root: nn.Module) -> list[nn.ModuleList]:
    found: list[nn.ModuleList] = []
    for child in root.children():
        if isinstance(child, nn.ModuleList) and any(True for _ in child.parameters()):
            found.append(child)
        else:
            found.extend(_outermost_lists(child))
    return found


def frozen_modules(model: nn.Module, stack: LayerStack, count: int) -> list[nn.Module]:
    """The modules that freezing the bottom `count` layers covers: all before the stack, and its first items."""
    if count == 0:
        return []
    frozen: list[nn.Module] = []
    place = model
    for part in stack.path.split("."):
        for name, child in place.named_children():
            if name == part:
                place = child
                break
            frozen.append(child)
    if not isinstance(place, nn.ModuleList):
        raise ModelError(f"{stack.path} of {type(model).__name__} is not a stack of layers.")
    return frozen + list(place)[:count]


def freeze(model: nn.Module, stack: LayerStack, count: int) -> list[nn.Module]:
    """Turn off the gradient of the bottom `count` layers and of what stands before them; return those modules.

    Frozen means frozen: the caller keeps them in eval mode (`train_mode`), so that no dropout acts inside them
    and BatchNorm statistics do not drift.
    """
    frozen = frozen_modules(model, stack, count)
    for module in frozen:
        module.requires_grad_(False)
    return frozen


def train_mode(model: nn.Module, frozen: list[nn.Module]) -> None:
    """Put the model in train mode and its frozen modules in eval mode."""
    model.train()
    for module in frozen:
        module.eval()
