"""QLoRA (Dettmers et al., 2023): stores the body's matrices in 4 bits while adapters train, by `bitsandbytes`.

A copy of a candidate is quantized when it moves to the device, and dequantized on the host at the end. The matrices
keep their rounded values: those are what the adapters were trained with.
"""

from typing import Any

import torch
from torch import nn

from hpo.errors import ConfigError

KIND = "nf4"


def check_quantization(device: str) -> None:
    """Raise `ConfigError` where this machine cannot train with 4-bit matrices."""
    if not device.startswith("cuda"):
        raise ConfigError(
            f"quantization: 4bit is for CUDA devices, and this study's device is {device}. "
            "Remove it from the search space."
        )
    _bitsandbytes()


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise ConfigError(
            "quantization: 4bit needs a package that is not installed: pip install 'hpo-finetune[qlora]'."
        ) from error
    return bitsandbytes


def quantize(model: nn.Module, names: list[str], dtype: torch.dtype) -> None:
    """Replace the linear layers of `names` by ones that store their matrix in 4 bits once they are on a device.

    Products are computed in `dtype`. Other kinds of layers (GPT-2's Conv1D) are unchanged.
    """
    bnb = _bitsandbytes()
    for name in names:
        plain = model.get_submodule(name)
        if type(plain) is not nn.Linear:
            continue
        quantized = bnb.nn.Linear4bit(
            plain.in_features,
            plain.out_features,
            bias=plain.bias is not None,
            compute_dtype=dtype,
            compress_statistics=True,
            quant_type=KIND,
            device="meta",
        )
        quantized.weight = bnb.nn.Params4bit(
            plain.weight.data, requires_grad=False, compress_statistics=True, quant_type=KIND, module=quantized
        )
        quantized.bias = plain.bias
        # Otherwise the first input's dtype replaces `dtype` (under autocast a norm's float32), and on a CPU an
        # evaluation changes the matrix's storage format, which fails for some sizes.
        quantized.compute_type_is_set, quantized.support_avx512bf16_for_cpu = True, False
        model.set_submodule(name, quantized)


def dequantize(model: nn.Module) -> None:
    """Replace layers in 4 bits by plain linear layers in float32, and move the model to the host."""
    bnb = _bitsandbytes()
    for name, quantized in [
        (name, part) for name, part in model.named_modules() if isinstance(part, bnb.nn.Linear4bit)
    ]:
        matrix = bnb.functional.dequantize_4bit(quantized.weight.data, quantized.weight.quant_state).float().cpu()
        plain = nn.Linear(quantized.in_features, quantized.out_features, bias=quantized.bias is not None, device="meta")
        plain.weight = nn.Parameter(matrix, requires_grad=False)
        if quantized.bias is not None:  # it has the dtype of the products by now
            quantized.bias.data = quantized.bias.data.float()
        plain.bias = quantized.bias
        model.set_submodule(name, plain)
    model.cpu()
