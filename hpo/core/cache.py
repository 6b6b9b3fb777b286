"""How much disk a study takes on this machine, and what goes when a cache outgrows its room."""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from hpo.core.paths import checkpoints_folder, home, run_folder

CACHE_BYTES = 20 * 2**30  # of each of the two large caches of HPO_HOME: encoded data, and what frozen layers make of it
LARGE_CACHES = ("tokens", "prefixes")
LEFTOVER_SECONDS = 86400.0  # what is written aside longer than that, nobody is writing any more


@dataclass(frozen=True)
class DiskUse:
    """Bytes on this machine: a study's unfinished trials, its models, report and logs; the caches of all studies."""

    checkpoints: int
    results: int
    cache: int


def disk_use(study: str, checkpoints: str | None) -> DiskUse:
    """What `study`, whose configuration says `checkpoints`, takes here: nothing where its files are elsewhere."""
    results, kept = run_folder(study), checkpoints_folder(study, checkpoints)
    within = folder_bytes(kept)
    return DiskUse(
        within, folder_bytes(results) - (within if results in kept.parents else 0), folder_bytes(home() / "cache")
    )


def folder_bytes(folder: Path) -> int:
    """The bytes of all files below a folder; 0 where it is not there. What vanishes meanwhile is not counted."""
    total, folders = 0, [os.fspath(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
    return total


def evict(cache: Path, needed: int, budget: int = CACHE_BYTES, unused_seconds: float = 0.0) -> None:
    """Remove entries of a cache until `needed` bytes fit into its budget: the one that was used last goes last.

    What was used within `unused_seconds` stays. An entry is a folder, its time that of its last use (`used`); one with
    a dot in its name is being written, or was when its process was killed: after a day it goes in any case.
    """
    now, kept = time.time(), []
    for entry in cache.iterdir():
        try:
            if entry.is_dir():
                kept.append((entry.stat().st_mtime, folder_bytes(entry), entry))
        except FileNotFoundError:
            continue  # another process needs room too
    total = sum(size for _, size, _ in kept) + needed
    for last_used, size, entry in sorted(kept):
        age = now - last_used
        written = "." in entry.name
        if (written and age > LEFTOVER_SECONDS) or (not written and total > budget and age >= unused_seconds):
            shutil.rmtree(entry, ignore_errors=True)
            total -= size


def touch(entry: Path) -> None:
    """Note that an entry of a cache is used now."""
    os.utime(entry)
