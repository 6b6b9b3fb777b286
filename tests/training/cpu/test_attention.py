"""Attention on a CPU agrees with torch's fused kernels."""

import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

from hpo.training.cpu.attention import NAME, attention_kernel, cpu_attention, restore_attention, use_cpu_attention

SMALL = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def gradients(model: torch.nn.Module, dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(3)
    ids = torch.randint(1, 40, (3, 11))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    hidden = hidden.float() * mask[..., None]
    hidden.square().sum().backward()
    return hidden.detach(), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("causal", [False, True])
def test_output_and_gradient_agree_with_the_fused_kernel(causal: bool) -> None:
    torch.manual_seed(0)
    model: torch.nn.Module = (
        LlamaModel(LlamaConfig(**SMALL, num_key_value_heads=4)) if causal else BertModel(BertConfig(**SMALL))
    ).eval()
    results = []
    for use in (restore_attention, use_cpu_attention):
        use(model)
        results.append(gradients(model, torch.bfloat16))
    assert model.config._attn_implementation == NAME
    hidden, ours = (results[0][0], results[1][0]), zip(results[0][1], results[1][1], strict=True)
    torch.testing.assert_close(*hidden, atol=0.05, rtol=0.05)
    for fused, plain in ours:  # up to the rounding of bf16
        assert float((fused - plain).norm()) <= 0.05 * float(fused.norm()) + 1e-3


def test_dropout_acts_in_float32() -> None:
    torch.manual_seed(0)
    query, key = (torch.randn(2, 3, 50, 8, requires_grad=True) for _ in range(2))
    value = torch.ones(2, 3, 50, 8)
    module = torch.nn.Module()
    expected, _ = cpu_attention(module, query, key, value, None, is_causal=False)
    torch.testing.assert_close(expected, torch.ones(2, 50, 3, 8))
    dropped, _ = cpu_attention(module, query, key, value, None, dropout=0.4, is_causal=False)
    assert float(dropped.detach().mean()) == pytest.approx(1.0, abs=0.05) and float(dropped.detach().std()) > 0.05


def test_model_with_another_implementation_is_unchanged() -> None:
    model = BertModel(BertConfig(**SMALL, attn_implementation="eager"))
    assert attention_kernel(model, "cpu") == "eager"
    use_cpu_attention(model)
    assert model.config._attn_implementation == "eager"
    assert attention_kernel(BertModel(BertConfig(**SMALL)), "cuda:0") == "sdpa"
