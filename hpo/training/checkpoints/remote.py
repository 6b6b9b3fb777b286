"""Checkpoints where other machines reach them: each is copied to a URL as it is saved, and fetched where one goes on.

URL/STUDY/TRIAL/checkpoint-2-120/    the checkpoint's files and the run's curve; state.json, which vouches for it, last
"""

import logging
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from hpo.errors import ConfigError

log = logging.getLogger("hpo.worker")

MANIFEST = "state.json"
TRIES, FIRST_PAUSE = 4, 1.0  # with pauses of 1, 2 and 4 seconds between them
# Seconds. The training waits for a copy; and who is told to leave has 10, of which the checkpoint itself takes some.
COPY_SECONDS, LEAVING_SECONDS = 600.0, 5.0


class RemoteCheckpoints:
    """The copies below one URL that `fsspec` knows. A file is written aside, then moved.

    What goes wrong there costs no trial, and the trial goes on. It is tried again a few times, then `tell` hears of it:
    once, until the place works again. Each file system has errors of its own kinds, so all are meant; one that does not
    answer at all is left alone until it does.
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
        self._asking: threading.Thread | None = None
        self._in_trouble = False
        self.shutdown = threading.Event()  # set: nothing is waited for any more
        self.warn: Callable[[str], None] = log.warning

    def check(self) -> None:
        """Write and remove a file. Raises `ConfigError` where that fails: better now than at the first checkpoint."""
        probe = f"{self._root}/.probe-{os.getpid()}"

        def try_out() -> None:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(probe, b"hpo")
            self._files.rm_file(probe)

        try:
            self._answer(try_out)
        except Exception as error:
            raise ConfigError(f"checkpoints: cannot write to {self._url}: {type(error).__name__}: {error}") from None

    def put(self, checkpoint: Path, trial: str) -> str | None:
        """Copy a checkpoint and the files beside it, then remove older copies; returns its URL, or None."""
        done = self._persist(
            lambda: self._upload(checkpoint, f"{self._root}/{trial}/{checkpoint.name}", trial),
            "cannot be written. The trials go on, and while this lasts only their own machines can go on with them",
        )
        return f"{self._url}/{self._study}/{trial}/{checkpoint.name}" if done else None

    def _upload(self, checkpoint: Path, place: str, trial: str) -> None:
        beside = [file for file in checkpoint.parent.iterdir() if file.is_file() and not file.name.startswith(".")]
        self._files.makedirs(place, exist_ok=True)
        for file in [*beside, *sorted(checkpoint.iterdir(), key=lambda file: file.name == MANIFEST)]:
            scratch = f"{place}/.{file.name}.{os.getpid()}"
            self._files.put_file(str(file), scratch)
            self._files.mv(scratch, f"{place}/{file.name}")
        for other in self._copies(trial):
            if _age(other) < _age(place):
                self._files.rm(other, recursive=True)

    def fetch(self, trial: str, folder: Path) -> None:
        """Bring the newest sound copy of a trial's checkpoints into `folder`, unless one as new is there."""
        self._persist(lambda: self._fetch(trial, folder), "cannot be read. A trial begun elsewhere starts again")

    def _fetch(self, trial: str, folder: Path) -> None:
        from hpo.training.checkpoints.checkpoint import is_valid, latest_checkpoint

        here = latest_checkpoint(folder)
        for copy in self._copies(trial):
            if here is not None and _age(copy) <= _age(here.name):
                return
            target = folder / copy.rpartition("/")[2]
            scratch = folder / f".{target.name}.{os.getpid()}"
            self._download(copy, scratch)
            if is_valid(scratch):
                _put_in_place(scratch, target)
                return
            log.warning("the copy %s is torn; an older one serves", copy)
            shutil.rmtree(scratch)

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
        place = f"{self._root}/{trial}".rstrip("/")

        def remove() -> None:
            self._files.invalidate_cache()
            if self._files.exists(place):
                self._files.rm(place, recursive=True)

        self._persist(remove, f"cannot be emptied; copies of checkpoints are left in {self._study}/{trial}".rstrip("/"))

    def remove_all(self, trials: Collection[str]) -> None:
        """Remove the copies of all these trials, as far as there are any."""

        def remove() -> None:
            self._files.invalidate_cache()
            for place in self._files.ls(self._root, detail=False) if self._files.exists(self._root) else ():
                if place.rstrip("/").rpartition("/")[2] in trials:
                    self._files.rm(place, recursive=True)

        self._persist(remove, "cannot be emptied; copies of checkpoints of finished trials are left there")

    def _persist(self, work: Callable[[], None], failing: str) -> bool:
        """Whether `work` was done: tried again with growing pauses, but only once where the last one failed too."""
        tries = 1 if self._in_trouble else TRIES
        for attempt in range(1, tries + 1):
            try:
                self._answer(work)
                break
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                again = attempt < tries and not isinstance(error, TimeoutError)
            log.info("try %d of %d, %s: %s", attempt, tries, self._url, reason)
            if not again or self.shutdown.wait(FIRST_PAUSE * 2 ** (attempt - 1)):
                if not self._in_trouble:
                    self.warn(f"checkpoints: {self._url} {failing} ({reason}).")
                self._in_trouble = True
                return False
        if self._in_trouble:
            log.warning("%s works again", self._url)
        self._in_trouble = False
        return True

    def _answer(self, work: Callable[[], None]) -> None:
        """Carry out `work` in a thread, which is left behind where it takes too long. Raises `TimeoutError` then."""
        if self._asking is not None and self._asking.is_alive():
            raise TimeoutError("it has not answered yet")
        answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

        def ask() -> None:
            try:
                work()
            except Exception as error:
                answers.put(error)
            else:
                answers.put(None)

        self._asking = threading.Thread(target=ask, name="hpo-remote-checkpoints", daemon=True)
        self._asking.start()
        began, leaving = time.monotonic(), None
        while True:
            try:
                error = answers.get(timeout=0.1)
                break
            except queue.Empty:
                now = time.monotonic()
                leaving = now if leaving is None and self.shutdown.is_set() else leaving
                if now - began > COPY_SECONDS or (leaving is not None and now - leaving > LEAVING_SECONDS):
                    raise TimeoutError(f"it did not answer for {now - began:.0f} seconds") from None
        if error is not None:
            raise error


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
