"""Making the tables: once, by one process at a time, and never over those of another version."""

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
from hpo.storage.models import SCHEMA_VERSION, Base, SchemaRow
from hpo.storage.optuna_internals import alembic_folder
from hpo.storage.retry import FIRST_PAUSE, REFUSALS, is_transient
from hpo.storage.urls import hide_password, redact

# Asked for again and again: a statement that waited for the lock would run into the time-outs of all statements.
_SERVER_LOCKS = {
    "postgresql": ("SELECT pg_try_advisory_lock(6844527)", "SELECT pg_advisory_unlock(6844527)"),
    "mysql": ("SELECT GET_LOCK('hpo-schema', 0)", "SELECT RELEASE_LOCK('hpo-schema')"),
}
# MySQL's DATETIME counts whole seconds, so a trial of half a second took none or one. The letters of a MariaDB server
# are latin1 in either case unless it is told otherwise: it refused a study named in others, and "Run" was "run".
_MYSQL = [
    "ALTER TABLE trials MODIFY datetime_start DATETIME(6), MODIFY datetime_complete DATETIME(6)",
    *(
        f"ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        for table in ("studies", "hpo_workers", "hpo_leases")
    ),
]
_SCHEMA_SECONDS = 120.0  # making the tables takes one or two


def prepare(url: URL, options: dict[str, Any], wait_seconds: float) -> None:
    """Make Optuna's tables and hpo's in the database at `url`, unless they are there.

    Waits up to `wait_seconds` for a server that is not there yet, or is cut off in the middle. Raises `StorageError`
    where the database cannot be reached or written, or holds tables of another version, which are left as they are.
    """
    engine = create_engine(url, **options)
    deadline = time.monotonic() + max(wait_seconds, _SCHEMA_SECONDS)
    try:
        if url.get_backend_name() == "sqlite":
            _make_folder(Path(str(url.database)))
        while True:
            try:
                return _prepare(engine, url, options, wait_seconds)
            except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
                cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
                # On a busy machine this process itself may be too slow for the server, which ends its transaction.
                if not is_transient(cause, url.get_backend_name()) or time.monotonic() >= deadline:
                    raise StorageError(_cannot_use(url, cause)) from None
            time.sleep(FIRST_PAUSE)
    finally:
        engine.dispose()


def _prepare(engine: Engine, url: URL, options: dict[str, Any], wait_seconds: float) -> None:
    if url.get_backend_name() != "sqlite":
        wait_for_server(engine, wait_seconds)
    with _looking(engine) as connection:
        ready = inspect(connection).has_table(SchemaRow.__tablename__) and _is_ready(connection, url)
    if not ready:
        with _alone(engine, url):
            _make(engine, url, options)


def _looking(engine: Engine) -> Connection:
    """A connection without transactions, which the server would end where this process is slow between two looks."""
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def wait_for_server(engine: Engine, wait_seconds: float) -> None:
    """Return once the server answers; raise `StorageError` when it refuses, or is silent for `wait_seconds`."""
    shown = hide_password(engine.url.render_as_string(hide_password=False))
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            engine.connect().close()
        except DBAPIError as error:
            reason = redact(str(error.orig), engine.url)
            if any(words in reason.lower() for words in REFUSALS):
                raise StorageError(f"storage: the server refuses {shown}: {reason}") from None
            if time.monotonic() >= deadline:
                raise StorageError(
                    f"storage: {shown} did not answer for {wait_seconds:.0f} seconds: {reason}. Start the server, or "
                    "correct host and port, then give the same command again."
                ) from None
            time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
        else:
            return


def _make_folder(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"storage: the folder {file.parent} cannot be made: {error.strerror}.") from None


@contextmanager
def _alone(engine: Engine, url: URL) -> Iterator[None]:
    """Hold the lock under which tables are made: of 8 processes that made Optuna's at once, up to 8 crashed."""
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
    take, give = _SERVER_LOCKS[backend]
    # Without a transaction: the server ends one that is idle for ten seconds, and its lock with it. On a busy machine
    # making the tables took longer, and the next process saw half of them.
    with _looking(engine) as connection:
        until = time.monotonic() + _SCHEMA_SECONDS
        while not connection.scalar(text(take)):
            if time.monotonic() >= until:
                shown = hide_password(url.render_as_string(hide_password=False))
                raise StorageError(
                    f"storage: another process has been making the tables of {shown} for {_SCHEMA_SECONDS:.0f} "
                    "seconds. If there is none, restart the server."
                )
            time.sleep(0.1)
        try:
            yield
        finally:
            with suppress(DBAPIError):  # a lost connection has given the lock back already
                connection.execute(text(give))


def _make(engine: Engine, url: URL, options: dict[str, Any]) -> None:
    with _looking(engine) as connection:
        if _is_ready(connection, url):
            return  # another process made them while this one waited for the lock
        if url.get_backend_name() == "sqlite":
            # Kept in the file, so set once. Readers and the writer do not wait for each other any more.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    RDBStorage(escape_template(url), dict(options)).engine.dispose()
    Base.metadata.create_all(engine)
    if url.get_backend_name() == "mysql":
        with engine.begin() as connection:
            for statement in _MYSQL:
                connection.execute(text(statement))
    with engine.begin() as connection, suppress(IntegrityError):
        connection.execute(insert(SchemaRow).values(schema_id=1, version=SCHEMA_VERSION))


def _is_ready(connection: Connection, url: URL) -> bool:
    """Whether all tables are there; raises `StorageError` where they are of another version."""
    shown = hide_password(url.render_as_string(hide_password=False))
    tables = set(inspect(connection).get_table_names())
    if "studies" not in tables:
        return False
    revision = None
    if "alembic_version" in tables:
        revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if revision is None and not connection.scalar(text("SELECT count(*) FROM studies")):
        return False  # whoever made them was killed before the end
    head, known = _optuna_revisions()
    if revision != head:
        if revision is None or revision in known:
            raise StorageError(
                f"storage: {shown} was made by an older Optuna (its tables are at {revision or 'no revision'}, those "
                f"of Optuna {optuna.__version__} at {head}); it is left as it is. Make a copy, then: "
                f"optuna storage upgrade --storage '{shown}'"
            )
        raise StorageError(
            f"storage: {shown} was made by a newer Optuna (its tables are at {revision}, those of Optuna "
            f"{optuna.__version__} at {head}); it is left as it is. Install a newer one: "
            "pip install -U hpo-finetune optuna"
        )
    if SchemaRow.__tablename__ not in tables:
        return False
    version = connection.scalar(select(SchemaRow.version))
    if version is not None and version != SCHEMA_VERSION:
        age = "a newer" if version > SCHEMA_VERSION else "an older"
        raise StorageError(
            f"storage: {shown} was made by {age} hpo (its tables have version {version}, this one knows "
            f"{SCHEMA_VERSION}); it is left as it is. Use that hpo, or another database."
        )
    return version is not None


def _optuna_revisions() -> tuple[str | None, set[str]]:
    config = Config()
    config.set_main_option("script_location", str(alembic_folder()).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    return script.get_current_head(), {revision.revision for revision in script.walk_revisions()}


def escape_template(url: URL) -> str:
    """The URL as `RDBStorage` wants it: it takes braces, which a password may hold, for a template."""
    return url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")


def _cannot_use(url: URL, cause: BaseException | None) -> str:
    shown = hide_password(url.render_as_string(hide_password=False))
    reason = redact(str(getattr(cause, "orig", None) or cause), url)
    return f"storage: {shown} cannot be used: {reason}."
