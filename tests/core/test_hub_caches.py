"""A home that cannot be written: caches move to the results, downloaded models are read where they are."""

import os
from pathlib import Path

import pytest

from hpo.core import hub_caches
from hpo.core.hub_caches import use_writable_caches

VARIABLES = ("HF_HOME", "HF_METRICS_CACHE", "HF_EVALUATE_CACHE", "HF_MODULES_CACHE", "HF_DATASETS_CACHE")


@pytest.fixture(autouse=True)
def _no_caches_are_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for variable in (*VARIABLES, "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        os.environ.pop(variable, None)
    os.environ |= {"HPO_HOME": str(tmp_path / "results"), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def refuse(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Make folders read-only, for root too."""
    monkeypatch.setattr(hub_caches.os, "access", lambda path, _mode: Path(path) not in folders)


def test_a_writable_home_is_left_alone() -> None:
    use_writable_caches()
    assert not any(variable in os.environ for variable in VARIABLES)


def test_read_only_home_moves_what_is_written_and_keeps_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "cache" / "huggingface" / "hub"
    hub.mkdir(parents=True)
    refuse(monkeypatch, hub.parent)
    os.environ["HF_DATASETS_CACHE"] = "mine"
    use_writable_caches()
    assert os.environ["HF_METRICS_CACHE"] == str(tmp_path / "results" / "cache" / "huggingface" / "metrics")
    assert os.environ["HF_DATASETS_CACHE"] == "mine" and "HF_HUB_CACHE" not in os.environ
    refuse(monkeypatch, hub.parent, tmp_path)
    os.environ.pop("HF_METRICS_CACHE")
    use_writable_caches()
    assert not os.environ["HF_METRICS_CACHE"].startswith(str(tmp_path / "results"))
