"""A folder of tones, high and low."""

from pathlib import Path

import pytest

from tests.contracts.task_data import write_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_rows("audio-classification", tmp_path / "rows", train=20, other=8)
