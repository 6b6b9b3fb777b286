"""LoRA by `peft`: trains low-rank adapters of the matrices above the frozen layers, and merges them at the end.

The adapted matrices follow from the model's structure, not from a table of architectures: `peft` gets their explicit
names. The head, and modules with weights that the checkpoint lacks, are fully trained.
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
from hpo.training.models.layers import LayerStack, find_heads, layer_parts, neighbor_modules
from hpo.training.models.quantization import dequantize, quantize

ATTENTION = re.compile("att(n|ention)", re.IGNORECASE)
PREFIX = "base_model.model."  # of each weight's name in an adapter file
ADAPTER = "adapter"  # the folder inside a final model's folder
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class AdapterWeights:
    """A trained adapter without its model, in the format of `peft`: its config, and its matrices by name."""

    config: dict[str, Any]
    matrices: dict[str, torch.Tensor] = field(repr=False)

    def save(self, folder: Path, model: nn.Module) -> None:
        """Write an adapter for `PeftModel.from_pretrained`, with the fully trained modules of `model`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(json.dumps(self.config, indent=1))
        prefixes = tuple(f"{name}." for name in self.config["modules_to_save"])
        full = {f"{PREFIX}{name}": p for name, p in model.state_dict().items() if name.startswith(prefixes)}
        save_file({name: p.cpu().contiguous() for name, p in (self.matrices | full).items()}, folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> "AdapterWeights | None":
        """Read an adapter written by `save`; None where `folder` does not exist."""
        if not folder.is_dir():
            return None
        return cls(json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS))


class Lora:
    """LoRA (Hu et al., 2022) inside a copy of a candidate, which is changed in place; `use_dora` makes it DoRA.

    Trainable are then the adapters, the head and modules with weights that the checkpoint lacks. `frozen` is the result
    of `freeze`: nothing in it is adapted. Where no matrix is left to adapt, the head alone is trained. DoRA: Liu et
    al., 2024.
    """

    def __init__(
        self, model: nn.Module, candidate: Candidate, frozen: Iterable[nn.Module], params: TrialParams
    ) -> None:
        self._model = model
        self._quantized = params.is_quantized
        self._fully_trained = _fully_trained(model, candidate.new_weights)
        trained = self._trained_parameters(candidate.new_weights)
        targets = self._targets(candidate, frozen, params)
        self._tuner: Any = None
        model.requires_grad_(False)
        if targets:
            self._add_adapters(candidate, targets, params)
        for parameter in trained:
            parameter.requires_grad_(True)
        for name in targets:
            _copy_shape(model.get_submodule(name))

    def _trained_parameters(self, new_weights: Collection[str]) -> list[nn.Parameter]:
        """Return the trainable parameters of the model that stay trainable."""
        prefixes = tuple(f"{name}." for name in self._fully_trained)
        return [
            p
            for name, p in self._model.named_parameters()
            if p.requires_grad and (name.startswith(prefixes) or name in new_weights)
        ]

    def _targets(self, candidate: Candidate, frozen: Iterable[nn.Module], params: TrialParams) -> list[str]:
        """Return the names of the matrices to adapt."""
        prefixes = tuple(f"{name}." for name in self._fully_trained)
        excluded = {id(part) for module in frozen for part in module.modules()}
        return [
            name
            for name, part in _matrices(self._model, candidate.stack, params.lora_targets)
            if id(part) not in excluded and not f"{name}.".startswith(prefixes)
        ]

    def _add_adapters(self, candidate: Candidate, targets: list[str], params: TrialParams) -> None:
        from peft import LoraConfig, LoraModel

        model = self._model
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
        model.is_loaded_in_4bit = self._quantized  # type: ignore[assignment]  # read by peft
        with warnings.catch_warnings():
            # GPT-2's Conv1D has its matrix transposed; peft detects it, sets the option and warns.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            self._tuner = LoraModel(model, self._config, "default")
        del model.is_loaded_in_4bit

    def merge(self) -> AdapterWeights | None:
        """Merge the adapters into the model, which is a plain one then, and return them; None where there are none."""
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
        plain |= {"inference_mode": True, "modules_to_save": self._fully_trained}
        config = {name: sorted(value) if isinstance(value, set) else value for name, value in plain.items()}
        if self._quantized:
            self._move_to_dequantized()
        self._tuner.merge_and_unload()
        return AdapterWeights(config, matrices)

    def _move_to_dequantized(self) -> None:
        """Move the adapters from the 4-bit matrices to the dequantized ones, to be merged there.

        `peft` would merge into 4 bits, which rounds the sum again.
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
    """Quantize the matrices that are not fully trained, those of frozen layers included, to 4 bits."""
    prefixes = tuple(f"{name}." for name in _fully_trained(model, candidate.new_weights))
    names = [name for name, _ in _matrices(model, candidate.stack, "all-linear")]
    quantize(model, [name for name in names if not f"{name}.".startswith(prefixes)], dtype)


def _copy_shape(adapted: Any) -> None:
    """Give a convolution with an adapter the shape attributes of its base layer: MobileNet reads them to pad."""
    convolution = adapted.base_layer
    for name in ("stride", "kernel_size", "dilation") if isinstance(convolution, nn.Conv2d) else ():
        setattr(adapted, name, getattr(convolution, name))


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """Return the modules with running statistics. They are frozen with adapters, as an adapter stores none."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def _fully_trained(model: Any, new: Collection[str]) -> list[str]:
    """Return the names of the modules to train fully: the head, and layers with weights that the checkpoint lacks.

    A language-modeling head is pre-trained as the embeddings are, and often tied to them.
    """
    vocabulary = model.get_output_embeddings()
    heads = [name for name in find_heads(model) if model.get_submodule(name) is not vocabulary]
    inside = tuple(f"{name}." for name in heads)
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters() if name in new}
    leaves = [name for name in owners if name and not list(model.get_submodule(name).children())]
    return heads + sorted(name for name in leaves if name not in heads and not name.startswith(inside))


def _matrices(model: nn.Module, stack: LayerStack, which: str) -> list[tuple[str, nn.Module]]:
    """Return names and modules of the matrices from the layer stack on; `which` is "attention" or "all-linear".

    Where the layers have no linear module, their convolutions; where none belongs to attention, all. The choice does
    not depend on the frozen layers.
    """
    kinds = _matrix_types([part for layer in layer_parts(model, stack) for part in layer])
    before = {id(part) for module in neighbor_modules(model, stack)[0] for part in module.modules()}
    output: Any = getattr(model, "get_output_embeddings", lambda: None)()
    found = [
        (name, part)
        for name, part in model.named_modules()
        if isinstance(part, kinds) and getattr(part, "groups", 1) == 1 and id(part) not in before and part is not output
    ]
    attention = [(name, part) for name, part in found if ATTENTION.search(name)]
    return attention if which == "attention" and attention else found


def _matrix_types(layers: Iterable[nn.Module]) -> tuple[type[nn.Module], ...]:
    """Return the types of the modules to adapt: linear ones, or convolutions where the layers have no linear module."""
    from transformers.pytorch_utils import Conv1D

    linear: tuple[type[nn.Module], ...] = (nn.Linear, Conv1D)
    return linear if any(isinstance(part, linear) for layer in layers for part in layer.modules()) else (nn.Conv2d,)
