"""Disk use of a study, and which entries are evicted from a cache that exceeds its budget."""

import os
import time
from pathlib import Path

import pytest

from hpo.core.cache import DiskUse, disk_use, evict, folder_bytes, scratch_folder
from hpo.core.paths import checkpoints_folder, home, named_folder

IDENTITY = "0123456789abcdef0123456789abcdef"


def write(file: Path, size: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(size))


def entry(cache: Path, name: str, size: int, age: float) -> Path:
    write(cache / name / "deep" / "values.bin", size)
    os.utime(cache / name, (time.time() - age, time.time() - age))
    return cache / name


@pytest.mark.parametrize("kind", [None, "s3://bucket/hpo", "elsewhere"])
def test_disk_use_counts_each_folder_once(kind: str | None, tmp_path: Path) -> None:
    checkpoints = None if kind is None else kind if "://" in kind else str(tmp_path / kind)
    assert disk_use("study", IDENTITY, checkpoints) == DiskUse(0, 0, 0)
    write(checkpoints_folder("study", IDENTITY, checkpoints) / "study-0" / "checkpoint-1-2" / "state.safetensors", 1000)
    write(named_folder("study") / "final" / "model.safetensors", 300)
    write(named_folder("study") / "report.html", 20)
    write(home() / "cache" / "tokens" / "key" / "data.arrow", 7)
    write(named_folder("another") / "report.html", 5000)
    assert disk_use("study", IDENTITY, checkpoints) == DiskUse(checkpoints=1000, results=320, cache=7)


def test_the_least_recently_used_entries_are_evicted(tmp_path: Path) -> None:
    entries = [entry(tmp_path, name, 100, age) for name, age in (("old", 300), ("older", 400), ("new", 10))]
    evict(tmp_path, 50, budget=350)
    assert [path.exists() for path in entries] == [True, True, True]
    evict(tmp_path, 150, budget=350)
    assert [path.exists() for path in entries] == [True, False, True]
    evict(tmp_path, 1000, budget=350, unused_seconds=60)
    assert [path.exists() for path in entries] == [False, False, True]
    assert folder_bytes(tmp_path) == 100


def test_unfinished_entries_are_evicted_unless_a_process_writes_them_whatever_their_age(tmp_path: Path) -> None:
    leftover = entry(tmp_path, "key.4242", 100, 0)
    with scratch_folder(tmp_path / "new") as scratch:
        os.utime(scratch, (0, 0))  # the clock jumped forward
        evict(tmp_path, 1000, budget=10)
        assert scratch.exists() and not leftover.exists()
        scratch.rename(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path / "failed"):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
