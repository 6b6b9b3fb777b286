"""A client-side timeout for PostgreSQL's driver: a suspended server acknowledges packets and never responds."""

from types import SimpleNamespace
from typing import Any


def with_response_timeout(seconds: float) -> Any:
    """Return psycopg for SQLAlchemy's `create_engine(module=...)`, with connections that wait at most `seconds`.

    The timeouts of the server and of TCP do not fire while the server process is suspended, because its kernel still
    acknowledges. A connection that times out is closed, and `psycopg.OperationalError` is raised.
    """
    import psycopg

    class Connection(psycopg.Connection[Any]):
        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            try:
                return super().wait(gen, interval, seconds if timeout is None else timeout)
            except psycopg.errors._WaitTimeout:
                self.pgconn.finish()  # sends nothing to the server, which would not respond to that either
                raise psycopg.OperationalError(f"the server did not respond for {seconds:g} seconds") from None

    return SimpleNamespace(**{**vars(psycopg), "connect": Connection.connect})
