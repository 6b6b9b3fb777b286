"""Disk use of a study on this machine, and eviction from caches that exceed their budget."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpo.core.paths import checkpoints_folder, home, run_folder

CACHE_BYTES = 20 * 2**30  # budget of each of the two large caches in HPO_HOME: encoded data, features of frozen layers
LEASE = ".lease"  # the end of the name of a file that is locked while a process writes an entry


@dataclass(frozen=True)
class DiskUse:
    """Bytes on this machine.

    `checkpoints` are those of a study's unfinished trials, `results` its models, report and logs, and `cache` the
    caches that all studies share.
    """

    checkpoints: int
    results: int
    cache: int


def disk_use(study: str, identity: str, checkpoints: str | None) -> DiskUse:
    """Return the disk use of `study` on this machine; `checkpoints` is the value in its configuration."""
    results, checkpoint_files = run_folder(study, identity), checkpoints_folder(study, identity, checkpoints)
    checkpoint_bytes = folder_bytes(checkpoint_files)
    nested = checkpoint_bytes if results in checkpoint_files.parents else 0
    return DiskUse(checkpoint_bytes, folder_bytes(results) - nested, folder_bytes(home() / "cache"))


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below a folder in bytes; 0 if it does not exist.

    Files that are deleted meanwhile are not counted.
    """
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
    """Remove the least recently used entries of a cache until `needed` more bytes fit into its budget.

    An entry is a folder, whose modification time is that of its last use (`touch`). Entries used within
    `unused_seconds` are kept. A dot in an entry's name marks it as unfinished: it is kept while a process writes it
    (`scratch_folder`), whatever the clock shows, and removed otherwise.
    """
    now, found = time.time(), []
    for entry in cache.iterdir():
        try:
            if entry.is_dir():
                found.append((entry.stat().st_mtime, folder_bytes(entry), entry))
        except FileNotFoundError:
            continue  # evicted by another process
    total = sum(size for _, size, _ in found) + needed
    for last_used, size, entry in sorted(found):
        age = now - last_used
        unfinished = "." in entry.name
        if (unfinished and not _is_leased(entry)) or (not unfinished and total > budget and age >= unused_seconds):
            shutil.rmtree(entry, ignore_errors=True)
            total -= size


@contextmanager
def scratch_folder(entry: Path) -> Iterator[Path]:
    """Create a folder beside a cache entry, to be written and then renamed to it; removed where it was not renamed.

    No other process evicts it meanwhile: this one holds a lease, a lock that ends with the process.
    """
    scratch = entry.with_name(f"{entry.name}.{os.getpid()}")
    lease = scratch.with_name(f"{scratch.name}{LEASE}")
    with lease.open("a") as held:  # before the folder exists
        fcntl.flock(held, fcntl.LOCK_EX)
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            scratch.mkdir()
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            lease.unlink(missing_ok=True)


def _is_leased(scratch: Path) -> bool:
    """Return whether a process writes an unfinished entry; remove the lease of one that was killed."""
    lease = scratch.with_name(f"{scratch.name}{LEASE}")
    try:
        with lease.open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lease.unlink(missing_ok=True)
    except BlockingIOError:
        return True
    return False


def touch(entry: Path) -> None:
    """Mark a cache entry as used now."""
    os.utime(entry)
