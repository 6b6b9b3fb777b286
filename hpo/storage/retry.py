"""Living through an outage of the database: which errors pass by themselves, and how long a worker waits for that."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError, TimeoutError

from hpo.errors import StorageError

log = logging.getLogger(__name__)

MAX_OUTAGE_SECONDS = 3600.0  # a server's upgrade, a failover, a night's reboot
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0

# What servers say when asking again would not help.
REFUSALS = (
    "authentication failed",
    "access denied",
    "no password supplied",
    "does not exist",
    "unknown database",
    "no pg_hba.conf entry",
)
_FULL = ("no space left", "disk full", "disk is full", "is full")

T = TypeVar("T")


class StorageUnavailable(StorageError):
    """The database cannot be reached, or is locked, right now: asking again later can help."""


def is_transient(error: BaseException | None, backend: str) -> bool:
    """Whether what a driver raised is an outage, a lock or a deadlock, and not a mistake or a full disk."""
    if isinstance(error, PendingRollbackError | TimeoutError):
        return True  # a second statement on a connection that was lost; no connection that is free
    if not isinstance(error, OperationalError | InterfaceError):
        return isinstance(error, DBAPIError) and error.connection_invalidated
    message = str(error.orig).lower()
    if backend == "sqlite":
        return "locked" in message or "busy" in message
    return not any(words in message for words in (*REFUSALS, *_FULL))


class RetryPolicy:
    """How long the threads of a process go on asking while the database is away; without seconds, not at all."""

    def __init__(self, seconds: float = 0.0, leave: threading.Event | None = None) -> None:
        self._seconds = seconds
        self._leave = leave or threading.Event()
        self._thread = threading.local()

    def call(self, work: Callable[[], T]) -> T:
        """Return `work()`, carried out again until the database is back.

        Gives up, raising `StorageUnavailable`, after the seconds given, or at once when `leave` is set. What is done
        inside of another `persist` is left to that one: a transaction is done again as a whole.
        """
        if self._seconds == 0 or getattr(self._thread, "busy", False):
            return work()
        with self.disabled():
            return self._persist(work)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Nothing is waited for inside, in this thread: `StorageUnavailable` is raised at once."""
        before = getattr(self._thread, "busy", False)
        self._thread.busy = True
        try:
            yield
        finally:
            self._thread.busy = before

    def _persist(self, work: Callable[[], T]) -> T:
        since: float | None = None
        pause = FIRST_PAUSE
        while True:
            try:
                result = work()
            except StorageUnavailable as error:
                if since is None:
                    since = time.monotonic()
                    log.warning("the database is away, and is asked again until it is back: %s", error)
                if self._leave.wait(pause) or time.monotonic() - since >= self._seconds:
                    raise
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if since is not None:
                    log.warning("the database is back after %.0f seconds", time.monotonic() - since)
                return result
