"""Packaged files are found in a checkout; `tests/contracts/test_distribution.py` finds them in installations."""

from pathlib import Path

import pytest

from hpo.core.assets import asset_folder

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "folder", "pattern"),
    [("search_spaces", "search_spaces", "*.yaml"), ("demo_models", "examples/models", "*/config.json")],
)
def test_assets_of_a_checkout_are_found(name: str, folder: str, pattern: str) -> None:
    assert asset_folder(name) == ROOT / folder
    assert list(asset_folder(name).glob(pattern))
