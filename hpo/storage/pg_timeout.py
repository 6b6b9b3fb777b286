"""A deadline on this side for PostgreSQL's driver, for a stopped server: it acknowledges and never answers."""

from types import SimpleNamespace
from typing import Any


def with_response_timeout(seconds: float) -> Any:
    """The module psycopg for SQLAlchemy's `create_engine(module=...)`, whose connections wait `seconds` at most.

    The server's own time-outs do not help where the server is stopped, nor do TCP's: its kernel goes on answering.
    A connection that was waited for in vain is closed, and `psycopg.OperationalError` is raised.
    """
    import psycopg

    class Connection(psycopg.Connection[Any]):
        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            try:
                return super().wait(gen, interval, seconds if timeout is None else timeout)
            except psycopg.errors._WaitTimeout:
                self.pgconn.finish()  # without a word to the server, which would not answer that either
                raise psycopg.OperationalError(f"the server did not answer for {seconds:g} seconds") from None

    return SimpleNamespace(**{**vars(psycopg), "connect": Connection.connect})
