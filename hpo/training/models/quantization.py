"""QLoRA (Dettmers et al., 2023): while adapters train, the matrices of the body are kept in 4 bits, by `bitsandbytes`.

A copy of a candidate is quantized on its way to the device, and made a plain model again, on the host, at the end. The
matrices then are what they were rounded to: the adapters were trained beside these.
"""

from typing import Any

import torch
from torch import nn

from hpo.errors import ConfigError

KIND = "nf4"


def check_quantization(device: str) -> None:
    """Raise `ConfigError` where nothing here can train beside 4-bit matrices."""
    if not device.startswith("cuda"):
        raise ConfigError(f"quantization: 4bit is for CUDA devices, and this study's is {device}. Leave it out here.")
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
    """Have the linear layers of `names` hold their matrices in 4 bits from when they move to a device.

    Products are computed in `dtype`. Other kinds of matrices (GPT-2's Conv1D) stay as they are.
    """
    bnb = _bitsandbytes()
    for name in names:
        plain = model.get_submodule(name)
        if type(plain) is not nn.Linear:
            continue
        small = bnb.nn.Linear4bit(
            plain.in_features,
            plain.out_features,
            bias=plain.bias is not None,
            compute_dtype=dtype,
            compress_statistics=True,
            quant_type=KIND,
            device="meta",
        )
        small.weight = bnb.nn.Params4bit(
            plain.weight.data, requires_grad=False, compress_statistics=True, quant_type=KIND, module=small
        )
        small.bias = plain.bias
        # Else the first input's type replaces `dtype` (under autocast that of a norm, float32), and on a CPU an
        # evaluation changes how the matrix is stored, which not all sizes allow.
        small.compute_type_is_set, small.support_avx512bf16_for_cpu = True, False
        model.set_submodule(name, small)


def dequantize(model: nn.Module) -> None:
    """Put plain linear layers, in float32 on the host, in the place of those in 4 bits; all of the model goes there."""
    bnb = _bitsandbytes()
    for name, small in [(name, part) for name, part in model.named_modules() if isinstance(part, bnb.nn.Linear4bit)]:
        whole = bnb.functional.dequantize_4bit(small.weight.data, small.weight.quant_state).float().cpu()
        plain = nn.Linear(small.in_features, small.out_features, bias=small.bias is not None, device="meta")
        plain.weight = nn.Parameter(whole, requires_grad=False)
        if small.bias is not None:  # by now of the type that products were computed in
            small.bias.data = small.bias.data.float()
        plain.bias = small.bias
        model.set_submodule(name, plain)
    model.cpu()
