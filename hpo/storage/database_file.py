"""The file of a SQLite database: its removal while it is open is detected, and what it held is saved beside it."""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import Engine, event

from hpo.errors import StorageError


class DatabaseRemoved(StorageError):
    """The file was removed or replaced while it was open. An open connection still reads and writes the old one."""


class DatabaseFile:
    """A database file that is open. Without the check, processes would continue on a file that nobody can open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened = _inode(path)

    def watch(self, engine: Engine) -> None:
        """Check the file before each connection of `engine`, which would create an empty one. A check takes 2 µs."""

        @event.listens_for(engine, "do_connect")
        def before(*_: object) -> None:
            self.check()

    def check(self) -> None:
        """Raise `DatabaseRemoved` where the path no longer leads to the file that was opened."""
        found = _inode(self.path)
        if found != self._opened:
            what = "removed" if found is None else "replaced by another"
            raise DatabaseRemoved(f"storage: the database {self.path} was {what} while it was in use.")

    def save_copy(self, engine: Engine) -> Path | None:
        """Write what the removed file held to a new file beside it, by a connection that is still open to it.

        Returns None where there is no such connection, or the folder is gone, too.
        """
        copy = self.path.with_name(f"{self.path.name}.saved-{os.getpid()}")
        try:
            with closing(engine.raw_connection()) as connection:
                connection.cursor().execute("VACUUM INTO ?", (str(copy),))
            with closing(sqlite3.connect(copy)) as opened:
                opened.execute("PRAGMA journal_mode=WAL")
        except (StorageError, sqlite3.Error):
            return None
        return copy

    def empty_log(self, engine: Engine) -> None:
        """Copy the write-ahead log into the file: what is in the log alone is lost where someone removes the log."""
        with suppress(StorageError, sqlite3.Error), closing(engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
