"""Retries during an outage of the database: which errors are transient, and for how long a worker retries."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError, TimeoutError

from hpo.errors import StorageError

log = logging.getLogger(__name__)

MAX_OUTAGE_SECONDS = 3600.0  # a server's upgrade, a failover, a night's reboot
FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0  # seconds between two tries; each is twice the last

# Messages of servers for which a retry does not help.
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
Method = TypeVar("Method", bound=Callable[..., Any])


class StorageUnavailable(StorageError):
    """The database cannot be reached or is locked at the moment. A retry can succeed."""


def is_transient(error: BaseException | None, backend: str) -> bool:
    """Return whether a driver's error is an outage, a lock or a deadlock, rather than a mistake or a full disk."""
    if isinstance(error, PendingRollbackError | TimeoutError):
        return True  # a second statement on a lost connection; no free connection in the pool
    if not isinstance(error, OperationalError | InterfaceError):
        return isinstance(error, DBAPIError) and error.connection_invalidated
    message = str(error.orig).lower()
    if backend == "sqlite":
        return "locked" in message or "busy" in message
    return not any(text in message for text in (*REFUSALS, *_FULL))


class RetryPolicy:
    """Retries calls for up to `seconds` while the database is unavailable; by default never."""

    def __init__(self, seconds: float = 0.0, cancel: threading.Event | None = None) -> None:
        self._seconds = seconds
        self._cancel = cancel or threading.Event()
        self._thread = threading.local()

    def call(self, function: Callable[[], T]) -> T:
        """Return `function()`, called again until the database is available.

        Raises `StorageUnavailable` after the seconds of the policy, or as soon as `cancel` is set. Inside another
        `call`, only the outer one retries: a transaction is repeated as a whole.
        """
        if self._seconds == 0 or getattr(self._thread, "disabled", False):
            return function()
        with self.disabled():
            return self._retry(function)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Do not retry in this thread inside the context: raise `StorageUnavailable` on the first failure."""
        before = getattr(self._thread, "disabled", False)
        self._thread.disabled = True
        try:
            yield
        finally:
            self._thread.disabled = before

    def _retry(self, function: Callable[[], T]) -> T:
        since: float | None = None
        delay = FIRST_DELAY
        while True:
            try:
                result = function()
            except StorageUnavailable as error:
                if since is None:
                    since = time.monotonic()
                    log.warning("the database is unavailable; retrying: %s", error)
                if self._cancel.wait(delay) or time.monotonic() - since >= self._seconds:
                    raise
                delay = min(2 * delay, LONGEST_DELAY)
            else:
                if since is not None:
                    log.warning("the database is available again after %.0f seconds", time.monotonic() - since)
                return result


def retried(method: Method) -> Method:
    """Decorate a method to be retried as a whole, by the `retry_policy` of its object."""

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.retry_policy.call(lambda: method(self, *args, **kwargs))

    return call  # type: ignore[return-value]
