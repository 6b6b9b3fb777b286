"""Copies of checkpoints at a URL: uploaded when one is saved, downloaded when another machine resumes the trial.

URL/STUDY-IDENTITY/TRIAL/checkpoint-2-120/    its files and the run's curve; state.json, with the digest, last
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
# Time limits of a request: training waits for an upload, and a worker that shuts down has 10 s, checkpoint included.
COPY_SECONDS, SHUTDOWN_SECONDS = 600.0, 5.0


class RemoteCheckpoints:
    """The copies of a study's checkpoints below one `fsspec` URL.

    A file is uploaded under a scratch name, then renamed. Errors never fail a trial: a request is retried a few times,
    then `warn` is called, once until the URL works again. File systems raise errors of their own kinds, so that every
    `Exception` counts. No request is sent while an earlier one has not returned.
    """

    def __init__(
        self,
        url: str,
        study: str,
        identity: str,
        shutdown: threading.Event | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """Open `url`; once `shutdown` is set, no request is waited for or retried. `warn`: the log unless given.

        Raises `ConfigError` for a URL that no installed file system opens.
        """
        from fsspec.core import url_to_fs

        self._url = url.rstrip("/")
        try:
            self._files, root = url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"checkpoints: {url} cannot be opened: {error}") from None
        self._study = study  # the folder of its copies
        self._identity = identity
        self._root = f"{root.rstrip('/')}/{study}"
        self._request: threading.Thread | None = None
        self._failing = False
        self._shutdown = shutdown or threading.Event()
        self._warn = warn or log.warning

    def check(self) -> None:
        """Write and remove a file before the first checkpoint needs it. Raises `ConfigError` where that fails."""
        probe = f"{self._root}/.probe-{os.getpid()}"

        def write_and_remove() -> None:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(probe, b"hpo")
            self._files.rm_file(probe)

        try:
            self._run(write_and_remove)
        except Exception as error:
            raise ConfigError(f"checkpoints: cannot write to {self._url}: {type(error).__name__}: {error}") from None

    def put(self, checkpoint: Path, trial: str) -> str | None:
        """Upload a checkpoint and the files beside it, then remove older copies. Return its URL, None on failure."""
        done = self._retry(
            lambda: self._upload(checkpoint, f"{self._root}/{trial}/{checkpoint.name}", trial),
            "cannot be written. Trials continue; until this is fixed, only the machine that runs a trial can resume it",
        )
        return f"{self._url}/{self._study}/{trial}/{checkpoint.name}" if done else None

    def _upload(self, checkpoint: Path, target: str, trial: str) -> None:
        beside = [file for file in checkpoint.parent.iterdir() if file.is_file() and not file.name.startswith(".")]
        self._files.makedirs(target, exist_ok=True)
        for file in [*beside, *sorted(checkpoint.iterdir(), key=lambda file: file.name == MANIFEST)]:
            scratch = f"{target}/.{file.name}.{os.getpid()}"
            self._files.put_file(str(file), scratch)
            self._files.mv(scratch, f"{target}/{file.name}")
        for other in self._copies(trial):
            if _age(other) < _age(target):
                self._files.rm(other, recursive=True)

    def fetch(self, trial: str, folder: Path) -> None:
        """Download the latest valid copy of a trial's checkpoints into `folder`, unless that has one as recent."""
        self._retry(
            lambda: self._fetch(trial, folder),
            "cannot be read. A trial that another machine started restarts from its first step",
        )

    def _fetch(self, trial: str, folder: Path) -> None:
        from hpo.training.checkpoints.checkpoint import is_valid, latest_checkpoint

        local = latest_checkpoint(folder, self._identity)
        for copy in self._copies(trial):
            if local is not None and _age(copy) <= _age(local.name):
                return
            target = folder / copy.rpartition("/")[2]
            scratch = folder / f".{target.name}.{os.getpid()}"
            self._download(copy, scratch)
            if is_valid(scratch, self._identity):
                _install(scratch, target)
                return
            log.warning("the copy %s is torn or of another study; trying an older one", copy)
            shutil.rmtree(scratch)

    def _download(self, copy: str, scratch: Path) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for file in self._files.ls(copy, detail=False):
            name = file.rpartition("/")[2]
            if not name.startswith("."):
                self._files.get_file(file, str(scratch / name))

    def _copies(self, trial: str) -> list[str]:
        """Return the copies of a trial's checkpoints, latest first. Other files are ignored."""
        from hpo.training.checkpoints.checkpoint import is_checkpoint_name

        self._files.invalidate_cache()
        try:
            found: list[Any] = self._files.ls(f"{self._root}/{trial}", detail=False)
        except FileNotFoundError:
            return []
        copies = [name.rstrip("/") for name in found if is_checkpoint_name(name.rstrip("/").rpartition("/")[2])]
        return sorted(copies, key=_age, reverse=True)

    def remove(self, trial: str = "") -> None:
        """Remove the copies of one trial; without a name, of all trials of the study."""
        target = f"{self._root}/{trial}".rstrip("/")

        def remove() -> None:
            self._files.invalidate_cache()
            if self._files.exists(target):
                self._files.rm(target, recursive=True)

        self._retry(remove, f"cannot be emptied; copies of checkpoints remain in {self._study}/{trial}".rstrip("/"))

    def remove_all(self, trials: Collection[str]) -> None:
        """Remove the copies of these trials, where there are any."""

        def remove() -> None:
            self._files.invalidate_cache()
            for copies in self._files.ls(self._root, detail=False) if self._files.exists(self._root) else ():
                if copies.rstrip("/").rpartition("/")[2] in trials:
                    self._files.rm(copies, recursive=True)

        self._retry(remove, "cannot be emptied; copies of checkpoints of finished trials remain there")

    def _retry(self, work: Callable[[], None], failure: str) -> bool:
        """Run `work`, retrying with growing pauses unless the last request failed too. Return whether it succeeded."""
        tries = 1 if self._failing else TRIES
        for attempt in range(1, tries + 1):
            try:
                self._run(work)
                break
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                again = attempt < tries and not isinstance(error, TimeoutError)
            log.info("try %d of %d, %s: %s", attempt, tries, self._url, reason)
            if not again or self._shutdown.wait(FIRST_PAUSE * 2 ** (attempt - 1)):
                if not self._failing:
                    self._warn(f"checkpoints: {self._url} {failure} ({reason}).")
                self._failing = True
                return False
        if self._failing:
            log.warning("%s works again", self._url)
        self._failing = False
        return True

    def _run(self, work: Callable[[], None]) -> None:
        """Run `work` in a thread. Raises its error, or `TimeoutError` where it takes too long (the thread is left)."""
        if self._request is not None and self._request.is_alive():
            raise TimeoutError("the last request has not returned yet")
        results: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

        def run() -> None:
            try:
                work()
            except Exception as error:
                results.put(error)
            else:
                results.put(None)

        self._request = threading.Thread(target=run, name="hpo-remote-checkpoints", daemon=True)
        self._request.start()
        started, stopping = time.monotonic(), None
        while True:
            try:
                error = results.get(timeout=0.1)
                break
            except queue.Empty:
                now = time.monotonic()
                stopping = now if stopping is None and self._shutdown.is_set() else stopping
                if now - started > COPY_SECONDS or (stopping is not None and now - stopping > SHUTDOWN_SECONDS):
                    raise TimeoutError(f"no response for {now - started:.0f} seconds") from None
        if error is not None:
            raise error


def _age(name: str) -> tuple[int, int]:
    """Return the attempt and step in a checkpoint's name, its sort key."""
    _, attempt, step = name.rpartition("/")[2].split("-")
    return int(attempt), int(step)


def _install(scratch: Path, target: Path) -> None:
    """Rename a downloaded folder to a checkpoint, and move the other files that came with it beside it."""
    for file in scratch.iterdir():
        if not file.name.startswith("state."):
            file.rename(target.parent / file.name)
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)
