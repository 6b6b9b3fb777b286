"""Checkpoints where other machines reach them: each is copied to a URL as it is saved, and fetched where one goes on.

URL/STUDY/TRIAL/checkpoint-2-120/    the checkpoint's files and the run's curve; state.json, which vouches for it, last
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from hpo.core.errors import ConfigError

log = logging.getLogger("hpo.worker")

MANIFEST = "state.json"


class Mirror:
    """The copies below one URL that `fsspec` knows. A file is written aside, then moved.

    What goes wrong there costs no trial: it is told in the worker's log, and the trial goes on. Each file system has
    errors of its own kinds, so all are meant.
    """

    def __init__(self, url: str, study: str) -> None:
        """Raises `ConfigError` for a URL that nothing here can open."""
        from fsspec.core import url_to_fs

        self._url = url.rstrip("/")
        try:
            self._files, root = url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"checkpoints: {url} cannot be opened: {error}") from None
        self._study = study
        self._root = f"{root.rstrip('/')}/{study}"

    def check(self) -> None:
        """Write and remove a file. Raises `ConfigError` where that fails: better now than at the first checkpoint."""
        probe = f"{self._root}/.probe-{os.getpid()}"
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(probe, b"hpo")
            self._files.rm_file(probe)
        except Exception as error:
            raise ConfigError(f"checkpoints: cannot write to {self._url}: {type(error).__name__}: {error}") from None

    def put(self, checkpoint: Path, trial: str) -> str | None:
        """Copy a checkpoint and the files beside it, then remove older copies; returns its URL, or None."""
        place = f"{self._root}/{trial}/{checkpoint.name}"
        beside = [file for file in checkpoint.parent.iterdir() if file.is_file() and not file.name.startswith(".")]
        try:
            self._files.makedirs(place, exist_ok=True)
            for file in [*beside, *sorted(checkpoint.iterdir(), key=lambda file: file.name == MANIFEST)]:
                scratch = f"{place}/.{file.name}.{os.getpid()}"
                self._files.put_file(str(file), scratch)
                self._files.mv(scratch, f"{place}/{file.name}")
            for other in self._copies(trial):
                if _age(other) < _age(place):
                    self._files.rm(other, recursive=True)
        except Exception as error:
            log.warning("%s is on this machine alone: %s cannot be written: %s", checkpoint, self._url, error)
            return None
        return f"{self._url}/{self._study}/{trial}/{checkpoint.name}"

    def fetch(self, trial: str, folder: Path) -> None:
        """Bring the newest sound copy of a trial's checkpoints into `folder`, unless one as new is there."""
        from hpo.training.checkpoint import is_sound, newest_checkpoint

        here = newest_checkpoint(folder)
        try:
            for copy in self._copies(trial):
                if here is not None and _age(copy) <= _age(here.name):
                    return
                target = folder / copy.rpartition("/")[2]
                scratch = folder / f".{target.name}.{os.getpid()}"
                self._download(copy, scratch)
                if is_sound(scratch):
                    _put_in_place(scratch, target)
                    return
                log.warning("the copy %s is torn; an older one serves", copy)
                shutil.rmtree(scratch)
        except Exception as error:
            log.warning("the checkpoints in %s cannot be read: %s", self._url, error)

    def _download(self, copy: str, scratch: Path) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for file in self._files.ls(copy, detail=False):
            name = file.rpartition("/")[2]
            if not name.startswith("."):
                self._files.get_file(file, str(scratch / name))

    def _copies(self, trial: str) -> list[str]:
        """The copies of a trial's checkpoints, newest first."""
        self._files.invalidate_cache()
        try:
            found: list[Any] = self._files.ls(f"{self._root}/{trial}", detail=False)
        except FileNotFoundError:
            return []
        copies = [name.rstrip("/") for name in found if name.rstrip("/").rpartition("/")[2].startswith("checkpoint-")]
        return sorted(copies, key=_age, reverse=True)

    def remove(self, trial: str = "") -> None:
        """Remove the copies of one trial, or of the whole study."""
        try:
            place = f"{self._root}/{trial}".rstrip("/")
            if self._files.exists(place):
                self._files.rm(place, recursive=True)
        except Exception as error:
            log.warning("copies of checkpoints are left in %s: %s", self._url, error)


def _age(name: str) -> tuple[int, int]:
    """Attempt and step, as in a checkpoint's name."""
    _, attempt, step = name.rpartition("/")[2].split("-")
    return int(attempt), int(step)


def _put_in_place(scratch: Path, target: Path) -> None:
    """Make a folder that was fetched a checkpoint like any other, and what came with it files beside it."""
    for file in scratch.iterdir():
        if not file.name.startswith("state."):
            file.rename(target.parent / file.name)
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)
