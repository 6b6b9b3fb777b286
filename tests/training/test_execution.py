"""The threads that a process takes."""

import pytest
import torch

from hpo.training import execution
from hpo.training.execution import Execution, all_cores


def test_all_cores_are_taken_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(execution, "cores", lambda: 3)
    try:
        with all_cores(Execution(threads=2)):
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
