"""Finds the layer stack of any Hugging Face model and freezes its bottom layers, without a table of architectures.

The stack is the outermost `nn.ModuleList` with parameters inside the backbone (the encoder's, where the model has one;
the one with most parameters, where there are several), or the outermost `nn.Sequential` where there is no list, as in
timm's models. Freezing k layers freezes all modules registered before the stack, its first k items, and all other
parameters that those items' output depends on: DeBERTa's relative positions and BART's normalized embeddings are
registered after the stack.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hpo.errors import ModelError


@dataclass(frozen=True)
class LayerStack:
    """The stack's path in the model, e.g. `bert.encoder.layer`, and its number of layers.

    Where a model keeps the parts of its layers in several lists of one length (Flaubert's and XLM's attentions, norms
    and feed-forward parts), `path` is the last of them and `parallel` the others.
    """

    path: str
    count: int
    parallel: tuple[str, ...] = ()


def find_stack(model: nn.Module) -> LayerStack:
    """Find a model's layer stack. Raises `ModelError` where it has none."""
    backbone = _backbone(model)
    encoder = backbone.get_encoder() if hasattr(backbone, "get_encoder") else None
    names = {id(module): name for name, module in model.named_modules()}
    lists = _outermost(backbone, nn.ModuleList)
    if isinstance(encoder, nn.Module) and encoder is not backbone:
        lists = _outermost(encoder, nn.ModuleList) or lists
    lists = lists or _outermost(backbone, nn.Sequential)
    if not lists:
        raise ModelError(f"{type(model).__name__} has no stack of layers (nn.ModuleList or nn.Sequential) to freeze.")
    stack = max(lists, key=lambda module: sum(p.numel() for p in module.parameters()))
    path, layers = names[id(stack)], len(list(stack.children()))
    parent = path.rpartition(".")[0]
    *parallel, path = _parallel(model, parent, layers) or [path]
    return LayerStack(path, layers, tuple(parallel))


def _parallel(model: nn.Module, parent: str, layers: int) -> list[str]:
    """Return the paths of the lists with one length in the module `parent`, where a layer's parts are in several.

    An encoder's and a decoder's layers are in different modules; lists of whole layers (two towers) hold attention
    each, and are not parts of one layer.
    """
    lists = {
        name: part
        for name, part in model.get_submodule(parent).named_children()
        if isinstance(part, nn.ModuleList) and len(part) == layers and any(True for _ in part.parameters())
    }
    norms = [name for name, part in lists.items() if all(isinstance(item, nn.LayerNorm) for item in part)]
    if not norms or layers < 2:
        return []
    return [f"{parent}.{name}" if parent else name for name in lists]


def _backbone(model: nn.Module) -> Any:
    """Return the model without its head."""
    backbone: Any = getattr(model, "base_model", model)
    return model.get_encoder() if backbone is model and hasattr(model, "get_encoder") else backbone


def find_heads(model: Any) -> list[str]:
    """Return the names of the top-level modules that are not part of the body (encoder, decoder, embeddings).

    A module that shares a parameter with the body is part of it.
    """
    inside = {id(p) for module in _body(model) for p in module.parameters()}
    children = {name: [id(p) for p in child.parameters()] for name, child in model.named_children()}
    return [name for name, parameters in children.items() if parameters and not inside & set(parameters)]


def token_embedding(model: Any) -> nn.Embedding | None:
    """Return a model's table of token embeddings; None where it has none, or code of its own that does not name it."""
    try:
        table = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return table if isinstance(table, nn.Embedding) else None


def head_dropouts(model: Any) -> list[nn.Dropout]:
    """Return the dropout layers of the head."""
    inside = {id(part) for module in _body(model) for part in module.modules()}
    return [part for part in model.modules() if isinstance(part, nn.Dropout) and id(part) not in inside]


def _body(model: Any) -> list[nn.Module]:
    parts = [_backbone(model), model.get_decoder()]  # `get_decoder` returns the model itself where it has no decoder
    return [part for part in parts if part is not model]


def _outermost(root: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in root.children():
        if isinstance(child, kind) and any(True for _ in child.parameters()):
            found.append(child)
        else:
            found.extend(_outermost(child, kind))
    return found


def stack_items(model: nn.Module, stack: LayerStack) -> nn.ModuleList | nn.Sequential:
    """Return the stack's layers in `model`."""
    items = model.get_submodule(stack.path)
    if not isinstance(items, nn.ModuleList | nn.Sequential):
        raise ModelError(f"{stack.path} of {type(model).__name__} is not a stack of layers.")
    return items


def layer_parts(model: nn.Module, stack: LayerStack) -> list[list[nn.Module]]:
    """Return the modules of each layer, in the order of their registration: one, or several in parallel lists."""
    lists = [list(model.get_submodule(path).children()) for path in (*stack.parallel, stack.path)]
    return [list(parts) for parts in zip(*lists, strict=True)]


def freeze(model: nn.Module, stack: LayerStack, count: int, example: Mapping[str, torch.Tensor]) -> list[nn.Module]:
    """Freeze the bottom `count` layers and the parameters that their output depends on; return the frozen modules.

    `example` is a batch of one or more inputs (without labels) for the forward pass that finds the dependencies. The
    caller keeps the modules in eval mode (`train_mode`), so that no dropout acts in them and BatchNorm statistics stay.
    Leaves the model in eval mode. Raises `ModelError` where the model has fewer layers.
    """
    if count > stack.count:
        raise ModelError(f"frozen_layers: {count} is more than the {stack.count} layers of {type(model).__name__}.")
    if count == 0:
        return []
    before, after = neighbor_modules(model, stack)
    items = list(stack_items(model, stack))[:count]
    # These first: a parameter tied to one of them (a decoder's embeddings) then does not count as a dependency.
    parts = [part for layer in layer_parts(model, stack)[:count] for part in layer]
    frozen = [module.requires_grad_(False) for module in (*before, *parts)]
    for parameter in _parameters_read(items[-1], model, _loose_parameters(model, stack), example):
        parameter.requires_grad_(False)
    return frozen + [module.requires_grad_(False) for module in _modules_read(items[-1], model, after, example)]


def _loose_parameters(model: nn.Module, stack: LayerStack) -> list[nn.Parameter]:
    """Return the trainable parameters that modules on the path to the stack hold themselves.

    The class token and the positions of timm's vision transformers are such.
    """
    parts = stack.path.split(".")
    ancestors = [model.get_submodule(".".join(parts[:depth])) for depth in range(len(parts))]
    return [p for module in ancestors for p in module.parameters(recurse=False) if p.requires_grad]


def neighbor_modules(model: nn.Module, stack: LayerStack) -> tuple[list[nn.Module], list[nn.Module]]:
    """Return the modules registered before the stack and those after it, at each level of the path to it.

    Parts of the layers in lists beside the stack are neither.
    """
    parts = [model.get_submodule(path) for path in stack.parallel]
    sides: tuple[list[nn.Module], list[nn.Module]] = ([], [])
    parent = model
    for part in stack.path.split("."):
        passed = False
        for name, child in parent.named_children():
            if name == part:
                passed = True
            elif not any(child is other for other in parts):
                sides[passed].append(child)
        parent = parent.get_submodule(part)
    return sides


def _modules_read(
    item: nn.Module, model: nn.Module, candidates: list[nn.Module], example: Mapping[str, torch.Tensor]
) -> list[nn.Module]:
    """Return those of `candidates` whose parameters the output of `item` depends on."""
    parameters = [p for module in candidates for p in module.parameters() if p.requires_grad]
    read = {id(p) for p in _parameters_read(item, model, parameters, example)}
    return [module for module in candidates if any(id(p) in read for p in module.parameters())]


def _parameters_read(
    item: nn.Module, model: nn.Module, parameters: list[nn.Parameter], example: Mapping[str, torch.Tensor]
) -> list[nn.Parameter]:
    """Return those of `parameters` that the output of `item` has a gradient for. Leaves the model in eval mode."""
    outputs: list[torch.Tensor] = []
    hook = item.register_forward_hook(lambda module, args, output: outputs.append(hidden_state(output)))
    model.eval()
    try:
        with torch.enable_grad():
            model(**example)
    finally:
        hook.remove()
    if not outputs or not outputs[-1].requires_grad or not parameters:
        return []
    gradients = torch.autograd.grad(outputs[-1].sum(), parameters, allow_unused=True)
    return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]


def find_depths(model: nn.Module, stack: LayerStack, example: Mapping[str, torch.Tensor]) -> dict[int, int]:
    """Return the depth of each parameter by its id: 0 for embeddings, 1 for the first layer, and so on.

    Parameters that the first layer's output depends on have depth 0, wherever they are registered. The rest (heads,
    norms after the stack, a decoder) is one above the last layer. `example` as in `freeze`.
    """
    before, after = neighbor_modules(model, stack)
    items = list(stack_items(model, stack))
    depths = {id(p): stack.count + 1 for p in model.parameters()}
    for index, layer in enumerate(layer_parts(model, stack)):
        depths |= {id(p): index + 1 for part in layer for p in part.parameters()}
    depths |= {id(p): 0 for module in before for p in module.parameters()}
    rest = [p for module in after for p in module.parameters() if p.requires_grad and depths[id(p)] > stack.count]
    rest += _loose_parameters(model, stack)
    return depths | {id(p): 0 for p in _parameters_read(items[0], model, rest, example)}


def hidden_state(output: Any) -> torch.Tensor:
    """Return a layer's hidden state: its output, or the first of a tuple."""
    return output[0] if isinstance(output, tuple) else output


def train_mode(model: nn.Module, frozen: list[nn.Module]) -> None:
    """Put the model in train mode and its frozen modules in eval mode."""
    model.train()
    for module in frozen:
        module.eval()
