"""LoRA by `peft`: small matrices are trained beside those of the layers that are not frozen, and merged at the end.

What is adapted follows from the model's structure, as the layer stack does: explicit names of matrices above the
frozen part, whatever the architecture calls them. The head, and what the checkpoint did not hold, is trained whole.
"""

import json
import re
import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hpo.config.trial_params import TrialParams
from hpo.training.models.candidate import Candidate
from hpo.training.models.layers import LayerStack, find_heads, neighbor_modules, stack_items
from hpo.training.models.quantization import dequantize, quantize

ATTENTION = re.compile("att(n|ention)", re.IGNORECASE)
PREFIX = "base_model.model."  # of each weight's name in an adapter's file
ADAPTER = "adapter"  # the folder in a final model's
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class AdapterWeights:
    """A trained adapter apart from its model, as `peft` writes it: its settings, its matrices by name."""

    config: dict[str, Any]
    matrices: dict[str, torch.Tensor] = field(repr=False)

    def save(self, folder: Path, model: nn.Module) -> None:
        """Write what `PeftModel.from_pretrained` puts on the base model; the whole modules are those of `model`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(json.dumps(self.config, indent=1))
        starts = tuple(f"{name}." for name in self.config["modules_to_save"])
        whole = {f"{PREFIX}{name}": p for name, p in model.state_dict().items() if name.startswith(starts)}
        save_file({name: p.cpu().contiguous() for name, p in (self.matrices | whole).items()}, folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> "AdapterWeights | None":
        """Read what `save` wrote; None where nothing was."""
        if not folder.is_dir():
            return None
        return cls(json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS))


class Lora:
    """LoRA (Hu et al., 2022) inside a copy of a candidate, changed in place; DoRA (Liu et al., 2024) is a switch of it.

    Only the adapters, the head and what the checkpoint did not hold are trained from now on. `frozen` is what `freeze`
    returned: nothing in it is adapted. Where nothing is left to adapt, the head alone is trained.
    """

    def __init__(
        self, model: nn.Module, candidate: Candidate, frozen: Iterable[nn.Module], params: TrialParams
    ) -> None:
        from peft import LoraConfig, LoraModel

        self._model = model
        self._whole = _trained_whole(model, candidate.new_weights)
        whole = tuple(f"{name}." for name in self._whole)
        trained = [
            p
            for name, p in model.named_parameters()
            if p.requires_grad and (name.startswith(whole) or name in candidate.new_weights)
        ]
        still = {id(part) for module in frozen for part in module.modules()}
        self._quantized = params.is_quantized
        targets = [
            name
            for name, part in _matrices(model, candidate.stack, params.lora_targets)
            if id(part) not in still and not f"{name}.".startswith(whole)
        ]
        self._tuner: Any = None
        model.requires_grad_(False)
        if targets:
            self._config = LoraConfig(
                r=params.lora_r,
                lora_alpha=params.lora_alpha or 2 * params.lora_r,
                lora_dropout=params.lora_dropout,
                target_modules=targets,
                use_dora=params.use_dora,
                use_rslora=params.use_rslora,
                base_model_name_or_path=candidate.ref.name,
                revision=candidate.ref.revision,
            )
            model.is_loaded_in_4bit = self._quantized  # type: ignore[assignment]  # how peft knows it
            with warnings.catch_warnings():
                # GPT-2's Conv1D holds its matrix transposed; peft sees it, sets the switch and says so.
                warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
                self._tuner = LoraModel(model, self._config, "default")
            del model.is_loaded_in_4bit
        for parameter in trained:
            parameter.requires_grad_(True)
        for name in targets:
            _show_shape(model.get_submodule(name))

    def merge(self) -> AdapterWeights | None:
        """Add the adapters to the matrices they stand beside: the model is a plain one again. Returns them apart."""
        if self._tuner is None:
            if self._quantized:
                dequantize(self._model)
            return None
        from peft import get_peft_model_state_dict

        matrices = {
            f"{PREFIX}{name}": m.clone()
            for name, m in get_peft_model_state_dict(self._model, save_embedding_layers=False).items()
        }
        plain = self._tuner.peft_config["default"].to_dict()
        plain |= {"inference_mode": True, "modules_to_save": self._whole}
        config = {name: sorted(value) if isinstance(value, set) else value for name, value in plain.items()}
        if self._quantized:
            self._stand_beside_plain_matrices()
        self._tuner.merge_and_unload()
        return AdapterWeights(config, matrices)

    def _stand_beside_plain_matrices(self) -> None:
        """Take the adapters off the matrices in 4 bits, and put them beside what these stand for, to be merged.

        `peft` would merge into 4 bits: that rounds the sum once more.
        """
        from peft import LoraModel

        trained = {name: p.detach().cpu() for name, p in self._model.named_parameters() if ".lora_" in name}
        self._tuner.unload()
        dequantize(self._model)
        self._tuner = LoraModel(self._model, self._config, "default")
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                if name in trained:
                    parameter.copy_(trained[name])


def quantize_body(model: nn.Module, candidate: Candidate, dtype: torch.dtype) -> None:
    """Have the matrices that are not trained whole, also those of frozen layers, be kept in 4 bits."""
    whole = tuple(f"{name}." for name in _trained_whole(model, candidate.new_weights))
    names = [name for name, _ in _matrices(model, candidate.stack, "all-linear")]
    quantize(model, [name for name in names if not f"{name}.".startswith(whole)], dtype)


def _show_shape(adapted: Any) -> None:
    """Have a convolution with an adapter show its shape as it did before: MobileNet reads it to pad."""
    convolution = adapted.base_layer
    for name in ("stride", "kernel_size", "dilation") if isinstance(convolution, nn.Conv2d) else ():
        setattr(adapted, name, getattr(convolution, name))


def frozen_statistics(model: nn.Module) -> list[nn.Module]:
    """The modules that keep running statistics: beside adapters they stay as they were, as an adapter holds none."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def _trained_whole(model: Any, new: Collection[str]) -> list[str]:
    """The names of the modules that are trained whole: the head, and layers with weights that the checkpoint lacked.

    A head that names tokens is as pre-trained as the embeddings, which it often is tied to.
    """
    vocabulary = model.get_output_embeddings()
    heads = [name for name in find_heads(model) if model.get_submodule(name) is not vocabulary]
    inside = tuple(f"{name}." for name in heads)
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters() if name in new}
    leaves = [name for name in owners if name and not list(model.get_submodule(name).children())]
    return heads + sorted(name for name in leaves if name not in heads and not name.startswith(inside))


def _matrices(model: nn.Module, stack: LayerStack, which: str) -> list[tuple[str, nn.Module]]:
    """Names and modules of the matrices from the layer stack on; of attention alone where a model has such.

    Convolutions where the layers hold no other matrix. The choice does not depend on what is frozen.
    """
    from transformers.pytorch_utils import Conv1D

    layers = list(stack_items(model, stack).modules())
    kinds: tuple[type[nn.Module], ...] = (nn.Linear, Conv1D)
    if not any(isinstance(part, kinds) for part in layers):
        kinds = (nn.Conv2d,)
    before = {id(part) for module in neighbor_modules(model, stack)[0] for part in module.modules()}
    output: Any = getattr(model, "get_output_embeddings", lambda: None)()
    found = [
        (name, part)
        for name, part in model.named_modules()
        if isinstance(part, kinds) and getattr(part, "groups", 1) == 1 and id(part) not in before and part is not output
    ]
    attention = [(name, part) for name, part in found if ATTENTION.search(name)]
    return attention if which == "attention" and attention else found
