"""The inference loop: batches of similar length, in eval mode and on the model's device, results in order."""

from typing import Any

import pytest
import torch

from hpo.tasks.inference import run_inference


class Doubling(torch.nn.Module):
    """Returns its input times two; `device` may be one without data."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.device = torch.device(device)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        assert not self.training and torch.is_inference_mode_enabled()
        return numbers * 2


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_results_are_in_the_order_of_inputs(batch_size: int) -> None:
    lengths, batches = [3, 9, 1, 9, 5, 7, 2], []

    def collate(indices: list[int]) -> dict[str, torch.Tensor]:
        batches.append([lengths[index] for index in indices])
        return {"numbers": torch.tensor(indices)}

    model = Doubling().train()
    found = run_inference(model, lengths, collate, lambda batch, indices: model(**batch).tolist(), batch_size)
    assert found == [0, 2, 4, 6, 8, 10, 12]
    assert [length for batch in batches for length in batch] == sorted(lengths, reverse=True)
    assert max(map(len, batches)) == min(batch_size, len(lengths))


def test_inputs_are_moved_to_the_models_device() -> None:
    devices: list[Any] = []

    def forward(batch: Any, indices: list[int]) -> list[str]:
        devices.append(batch["numbers"].device.type)
        return ["done"] * len(indices)

    assert (
        run_inference(Doubling("meta"), [1, 2], lambda indices: {"numbers": torch.zeros(2)}, forward, 8) == ["done"] * 2
    )
    assert devices == ["meta"]


def test_no_inputs_run_nothing() -> None:
    assert run_inference(Doubling(), [], lambda indices: {}, lambda batch, indices: [], 8) == []
