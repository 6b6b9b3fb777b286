"""Dropout from random bits has the distribution of dropout and uses torch's generator."""

import pytest
import torch
from torch import nn

from hpo.training.cpu.dropout import BitDropout, restore_dropout, use_bit_dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_distribution_is_that_of_dropout(dtype: torch.dtype) -> None:
    ones = torch.ones(333, 301, dtype=dtype, requires_grad=True)
    torch.manual_seed(1)
    dropped = BitDropout(0.3)(ones)
    zero = (dropped == 0).float()
    spread = (0.3 * 0.7 / ones.numel()) ** 0.5
    assert abs(float(zero.mean()) - 0.3) < 4 * spread
    # Rows, columns and neighbors are independent.
    assert float(zero.mean(0).std()) == pytest.approx((0.21 / 333) ** 0.5, rel=0.2)
    assert float(zero.mean(1).std()) == pytest.approx((0.21 / 301) ** 0.5, rel=0.2)
    both = (zero[:, 1:] * zero[:, :-1]).mean()
    assert float(both) == pytest.approx(0.09, abs=4 * spread)
    assert dropped.dtype == dtype and set(dropped.unique().tolist()) == {0, float(torch.tensor(1 / 0.7, dtype=dtype))}
    dropped.sum().backward()
    assert torch.equal(ones.grad, dropped)  # type: ignore[arg-type]


def test_mask_depends_on_the_seed_and_evaluation_has_none() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.0))
    use_bit_dropout(model)
    assert all(type(module) is BitDropout for module in model)
    x = torch.ones(5, 7)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(model(x))
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    assert torch.equal(model.eval()(x), x)
    restore_dropout(model)
    assert all(type(module) is nn.Dropout for module in model)
