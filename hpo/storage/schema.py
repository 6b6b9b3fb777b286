"""Creates the tables: once, by one process at a time, and never over tables of another version."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from alembic.config import Config
from alembic.script import ScriptDirectory
from optuna.storages import RDBStorage
from sqlalchemy import URL, Connection, Engine, create_engine, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from hpo.errors import StorageError
from hpo.errors.redact import redact_url
from hpo.storage.models import SCHEMA_VERSION, Base, SchemaRow
from hpo.storage.optuna_internals import alembic_folder
from hpo.storage.retry import FIRST_DELAY, REFUSALS, is_transient
from hpo.storage.urls import engine_url, hide_password

# Polled: a statement that waits for the lock would exceed the statement timeout.
_SERVER_LOCKS = {
    "postgresql": ("SELECT pg_try_advisory_lock(6844527)", "SELECT pg_advisory_unlock(6844527)"),
    "mysql": ("SELECT GET_LOCK('hpo-schema', 0)", "SELECT RELEASE_LOCK('hpo-schema')"),
}
# MySQL's DATETIME has whole seconds by default, so that a trial of half a second took 0 or 1 s. MariaDB's default
# character set is case-insensitive latin1: names in other scripts were rejected, and "Run" was equal to "run".
_MYSQL = [
    "ALTER TABLE trials MODIFY datetime_start DATETIME(6), MODIFY datetime_complete DATETIME(6)",
    *(
        f"ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        for table in ("studies", "hpo_studies", "hpo_workers", "hpo_leases")
    ),
]
_SCHEMA_SECONDS = 120.0  # creating the tables takes 1 to 2 s


def prepare(url: URL, options: dict[str, Any], wait_seconds: float) -> None:
    """Create Optuna's tables and hpo's in the database at `url` if they do not exist.

    Waits up to `wait_seconds` for a server that does not respond yet or disconnects. Raises `StorageError` if the
    database cannot be reached or written, or if it has tables of another version, which are not changed.
    """
    engine = create_engine(url, **options)
    deadline = time.monotonic() + max(wait_seconds, _SCHEMA_SECONDS)
    try:
        if url.get_backend_name() == "sqlite":
            _create_folder(Path(str(url.database)))
        while True:
            try:
                return _prepare(engine, url, options, wait_seconds)
            except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
                cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
                # On a busy machine this process may be so slow that the server ends its transaction.
                if not is_transient(cause, url.get_backend_name()) or time.monotonic() >= deadline:
                    raise StorageError(_cannot_use(url, cause)) from None
            time.sleep(FIRST_DELAY)
    finally:
        engine.dispose()


def _prepare(engine: Engine, url: URL, options: dict[str, Any], wait_seconds: float) -> None:
    if url.get_backend_name() != "sqlite":
        wait_for_server(engine, wait_seconds)
    with _autocommit(engine) as connection:
        ready = inspect(connection).has_table(SchemaRow.__tablename__) and _is_ready(connection, url)
    if not ready:
        with _schema_lock(engine, url):
            _create_tables(engine, url, options)


def _autocommit(engine: Engine) -> Connection:
    """Open a connection without transactions: a server ends those that are idle, if this process is slow."""
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def wait_for_server(engine: Engine, wait_seconds: float) -> None:
    """Wait for the server. Raises `StorageError` if it refuses, or does not respond for `wait_seconds`."""
    shown = redact_url(engine.url.render_as_string(hide_password=False))
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            engine.connect().close()
        except DBAPIError as error:
            reason = hide_password(str(error.orig), engine.url)
            if any(text in reason.lower() for text in REFUSALS):
                raise StorageError(f"storage: the server refuses {shown}: {reason}") from None
            if time.monotonic() >= deadline:
                raise StorageError(
                    f"storage: {shown} did not respond for {wait_seconds:.0f} seconds: {reason}. Start the server, or "
                    "correct host and port, then run the same command again."
                ) from None
            time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
        else:
            return


def _create_folder(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"storage: the folder {file.parent} cannot be created: {error.strerror}.") from None


@contextmanager
def _schema_lock(engine: Engine, url: URL) -> Iterator[None]:
    """Hold the lock for creating tables: when 8 processes created Optuna's tables at once, up to 8 crashed."""
    backend = url.get_backend_name()
    if backend == "sqlite":
        file = Path(f"{url.database}.lock")
        try:
            lock = file.open("a")
        except OSError as error:
            raise StorageError(f"storage: {file.parent} cannot be written: {error.strerror}.") from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        return
    lock_statement, unlock_statement = _SERVER_LOCKS[backend]
    # Without a transaction: the server ends one that is idle for 10 s, and releases its lock. On a busy machine
    # creating the tables took longer, and the next process found half of them.
    with _autocommit(engine) as connection:
        until = time.monotonic() + _SCHEMA_SECONDS
        while not connection.scalar(text(lock_statement)):
            if time.monotonic() >= until:
                shown = redact_url(url.render_as_string(hide_password=False))
                raise StorageError(
                    f"storage: another process has been creating the tables of {shown} for {_SCHEMA_SECONDS:.0f} "
                    "seconds. If there is none, restart the server."
                )
            time.sleep(0.1)
        try:
            yield
        finally:
            with suppress(DBAPIError):  # a lost connection has released the lock already
                connection.execute(text(unlock_statement))


def _create_tables(engine: Engine, url: URL, options: dict[str, Any]) -> None:
    with _autocommit(engine) as connection:
        if _is_ready(connection, url):
            return  # another process created them while this one waited for the lock
        if url.get_backend_name() == "sqlite":
            # Stored in the file. With it, readers and the writer do not wait for each other.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    RDBStorage(engine_url(url), dict(options)).engine.dispose()
    Base.metadata.create_all(engine)
    if url.get_backend_name() == "mysql":
        with engine.begin() as connection:
            for statement in _MYSQL:
                connection.execute(text(statement))
    with engine.begin() as connection, suppress(IntegrityError):
        connection.execute(insert(SchemaRow).values(schema_id=1, version=SCHEMA_VERSION))


def _is_ready(connection: Connection, url: URL) -> bool:
    """Return whether all tables exist. Raises `StorageError` if they are of another version."""
    shown = redact_url(url.render_as_string(hide_password=False))
    tables = set(inspect(connection).get_table_names())
    if "studies" not in tables:
        return False
    revision = None
    if "alembic_version" in tables:
        revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if revision is None and not connection.scalar(text("SELECT count(*) FROM studies")):
        return False  # the process that created them was killed before the end
    head, known = _optuna_revisions()
    if revision != head:
        if revision is None or revision in known:
            raise StorageError(
                f"storage: {shown} was created by an older Optuna (its tables are at {revision or 'no revision'}, "
                f"those of Optuna {optuna.__version__} at {head}). It was not changed. Make a copy, then run: "
                f"optuna storage upgrade --storage '{shown}'"
            )
        raise StorageError(
            f"storage: {shown} was created by a newer Optuna (its tables are at {revision}, those of Optuna "
            f"{optuna.__version__} at {head}). It was not changed. Install a newer one: "
            "pip install -U hpo-finetune optuna"
        )
    if SchemaRow.__tablename__ not in tables:
        return False
    version = connection.scalar(select(SchemaRow.version))
    if version is not None and version != SCHEMA_VERSION:
        age = "a newer" if version > SCHEMA_VERSION else "an older"
        raise StorageError(
            f"storage: {shown} was created by {age} hpo (its tables have version {version}, this hpo uses version "
            f"{SCHEMA_VERSION}). It was not changed. Use that version of hpo, or another database."
        )
    return version is not None


def _optuna_revisions() -> tuple[str | None, set[str]]:
    config = Config()
    config.set_main_option("script_location", str(alembic_folder()).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    return script.get_current_head(), {revision.revision for revision in script.walk_revisions()}


def _cannot_use(url: URL, cause: BaseException | None) -> str:
    shown = redact_url(url.render_as_string(hide_password=False))
    reason = hide_password(str(getattr(cause, "orig", None) or cause), url)
    return f"storage: {shown} cannot be used: {reason}."
