"""Storage URLs: checked before anything connects, and shown without their secrets."""

import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from hpo.errors import ConfigError
from hpo.errors.redact import MASK, has_secret, redact, redact_url

EXAMPLES = (
    "Examples: sqlite:////home/me/studies/hpo.db, "
    "postgresql+psycopg://user:password@host:5432/hpo or mysql+pymysql://user:password@host:3306/hpo."
)

# The databases that Optuna supports, each with the driver that has client-side timeouts.
DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg", "mysql": "pymysql"}
# Timeouts in seconds. A worker that is suspended inside a transaction (idle) loses its locks before those who wait
# for them give up. Each is shorter than the next, so that the error names the cause. A dead connection costs the sum of
# the last two.
IDLE_SECONDS, LOCK_SECONDS, STATEMENT_SECONDS, RESPONSE_SECONDS, CONNECT_SECONDS = 10, 15, 20, 25, 10

_OTHER_SPELLINGS = {"postgres": "postgresql+psycopg", "mariadb": "mysql+pymysql"}
_NOT_A_DATABASE = ("journal", "grpc", "redis")

# These do not share SQLite's locks and memory between machines (https://www.sqlite.org/wal.html).
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "fuse.ceph", "fuse.sshfs", "glusterfs", "fuse.glusterfs"}
    | {"lustre", "gpfs", "beegfs", "ocfs2", "gfs2", "orangefs", "pvfs2"}
)


def hide_password(message: str, url: URL) -> str:
    """Return a driver's message in one line, without the URL's password in any of its spellings."""
    raw = url.render_as_string(hide_password=False)
    secrets = {str(url.password or ""), raw.rpartition("@")[0].partition("://")[2].partition(":")[2]}
    secrets.update(str(value) for key, value in url.query.items() if has_secret(f"?{key}=x"))
    for secret in sorted({*secrets, *(unquote(secret) for secret in secrets)}, key=len, reverse=True):
        if secret:
            message = message.replace(secret, MASK)
    return " ".join(redact(message).split("\n(Background")[0].split())


def parse_url(text: str) -> URL:
    """Return the URL, with an absolute path for SQLite. Raises `ConfigError`, which shows the correct form."""
    shown = redact_url(text)
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    family = scheme.partition("+")[0]
    if family in _NOT_A_DATABASE or text.endswith((".log", ".journal")):
        raise ConfigError(
            f"storage: {shown} is not an SQL database. Journal files, Redis and the gRPC proxy cannot hold hpo's "
            f"tables of workers, leases and budgets, without which trials are lost or run twice. {EXAMPLES}"
        )
    if family in _OTHER_SPELLINGS:
        correct = shown.replace(text.partition("://")[0], _OTHER_SPELLINGS[family], 1)
        raise ConfigError(f"storage: the scheme {scheme}:// is unknown. Write {correct}")
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # Not shown: where the password is in it is unknown. `from None`: the parser's message may contain it, too.
        raise ConfigError(f"storage: the value is not a database URL (it is not shown here). {EXAMPLES}") from None
    if family not in DRIVERS:
        raise ConfigError(f"storage: {shown} names {family}; hpo supports sqlite, postgresql and mysql. {EXAMPLES}")
    if family == "sqlite":
        return _read_sqlite(url, text, shown)
    _check_server(url, shown)
    return url


def _read_sqlite(url: URL, text: str, shown: str) -> URL:
    if url.host:
        raise ConfigError(
            f"storage: {shown} has too few slashes: three before a relative path (sqlite:///studies/hpo.db), four "
            "before an absolute one (sqlite:////home/me/studies/hpo.db)."
        )
    path = _database_path(text) or ":memory:"
    if path == ":memory:" or path.startswith("file:"):
        raise ConfigError(f"storage: {shown} is not a file that several workers can share. {EXAMPLES}")
    file = Path(path).expanduser().absolute()
    kind = network_file_system(file.parent)
    if kind is not None:
        raise ConfigError(
            f"storage: {file} is on a network file system ({kind}), where SQLite loses data when several processes "
            "write. Use a folder on a local disk (HPO_HOME moves all results), or PostgreSQL for several machines."
        )
    return URL.create(url.drivername, database=str(file))


def _database_path(text: str) -> str:
    """Return the path in a SQLite URL. An unescaped question mark may be part of it: SQLAlchemy cuts the path there."""
    path = text.partition("://")[2].removeprefix("/")
    before, question, query = path.rpartition("?")
    return unquote(before if question and "/" not in query and "=" in query else path)


def is_read_only(url: URL) -> bool:
    """Return whether the URL is that of a SQLite file which this process may read, but not write."""
    file = Path(str(url.database))
    if url.get_backend_name() != "sqlite" or not file.is_file():
        return False
    # SQLite writes its log beside the file.
    return not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))


def copy_database(url: URL, folder: Path) -> URL:
    """Copy a SQLite file with its log into `folder`; return the URL of the copy."""
    file = Path(str(url.database))
    for _ in range(5):
        before = _stamp(file)
        for part in (file, file.with_name(f"{file.name}-wal")):
            if part.exists():
                shutil.copyfile(part, folder / part.name)
        if _stamp(file) == before:  # else another process has written meanwhile
            break
    return URL.create(url.drivername, database=str(folder / file.name))


def _stamp(file: Path) -> list[tuple[int, int]]:
    found = [part.stat() for part in (file, file.with_name(f"{file.name}-wal")) if part.exists()]
    return [(stat.st_mtime_ns, stat.st_size) for stat in found]


def engine_url(url: URL) -> str:
    """Return the URL for `RDBStorage`, which reads braces, for example in a password, as a template."""
    return url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")


def _check_server(url: URL, shown: str) -> None:
    """Raise `ConfigError` for a server's URL without host, with an unescaped @, or without its driver installed."""
    if url.host is None and not url.query:
        raise ConfigError(f"storage: {shown} has no host. {EXAMPLES}")
    if "@" in (url.host or ""):
        raise ConfigError(f"storage: in {shown}, the password contains an @: write it as %40 (and / as %2F, : as %3A).")
    family, driver = url.get_backend_name(), url.get_driver_name()
    if driver != DRIVERS[family]:
        correct = shown.replace(url.drivername, f"{family}+{DRIVERS[family]}", 1)
        raise ConfigError(
            f"storage: {shown} names the driver {driver}; hpo supports {DRIVERS[family]}, which has timeouts for a "
            f"server that does not respond. Write {correct}"
        )
    if find_spec(driver) is None:
        raise ConfigError(
            f"storage: {shown} needs the driver {driver}, which is not installed: pip install 'hpo-finetune[{family}]'"
        )


def engine_options(url: URL) -> dict[str, Any]:
    """Return the arguments of SQLAlchemy's `create_engine` for this URL.

    Every wait has a timeout: for a connection, for a lock, and for a server that accepts a statement and never
    responds. A dead connection is detected before use, and costs at most `RESPONSE_SECONDS` and a new connection.
    """
    backend = url.get_backend_name()
    if backend == "sqlite":
        # With SQLite's default of 5 s, one commit of 16 processes was lost; with 60 s none.
        return {"connect_args": {"timeout": 60.0}}
    # A dropped connection is detected and replaced before use. A read returns what was committed before it, so that
    # the count of trials under the study's lock is exact on MySQL too.
    options: dict[str, Any] = {"pool_pre_ping": True, "isolation_level": "READ COMMITTED"}
    if backend == "postgresql":
        limits = {
            "lock_timeout": LOCK_SECONDS,
            "statement_timeout": STATEMENT_SECONDS,
            "idle_in_transaction_session_timeout": IDLE_SECONDS,
        }
        user_options = url.query.get("options", "")
        settings = " ".join(
            [str(user_options), "-c timezone=UTC", *(f"-c {name}={seconds}s" for name, seconds in limits.items())]
        ).strip()
        arguments = {"connect_timeout": CONNECT_SECONDS, "options": settings}
        return {**options, "module": with_response_timeout(RESPONSE_SECONDS), "connect_args": arguments}
    setup = (
        f"SET SESSION innodb_lock_wait_timeout = {LOCK_SECONDS}, lock_wait_timeout = {LOCK_SECONDS}, "
        f"time_zone = '+00:00' /*M!100304 , idle_transaction_timeout = {IDLE_SECONDS} */"
    )
    timeouts = {"read_timeout": RESPONSE_SECONDS, "write_timeout": RESPONSE_SECONDS}
    return {**options, "connect_args": {"connect_timeout": CONNECT_SECONDS, "init_command": setup, **timeouts}}


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


def network_file_system(folder: Path, mounts: str | None = None) -> str | None:
    """Return the type of the network file system that `folder` is on, or None for a local one.

    `mounts` is the content of Linux's /proc/self/mountinfo, by default read from there. Returns None on other systems.
    """
    if mounts is None:
        table = Path("/proc/self/mountinfo")
        if not table.exists():
            return None
        mounts = table.read_text(encoding="utf-8", errors="replace")
    kinds: dict[Path, str] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
        kinds[Path(point)] = after.split()[0]
    resolved = folder.resolve()
    for parent in (resolved, *resolved.parents):
        if parent in kinds:
            return kinds[parent] if kinds[parent] in NETWORK_FILE_SYSTEMS else None
    return None
