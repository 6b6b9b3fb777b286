"""What a storage URL means: checked before anything connects, and never shown with its password."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from hpo.errors import StorageError
from hpo.storage.pg_timeout import with_response_timeout

EXAMPLES = (
    "A right one looks like sqlite:////home/me/studies/hpo.db, "
    "postgresql+psycopg://user:password@host:5432/hpo or mysql+pymysql://user:password@host:3306/hpo."
)

# The databases that Optuna supports, and for each the driver whose waiting can be bounded from this side.
DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg", "mysql": "pymysql"}
# Seconds. A worker that is stopped in mid-transaction (idle) loses its locks before those who wait for them give up;
# each is shorter than the next, so that the reason told is the true one; a dead connection costs the last two.
IDLE_SECONDS, LOCK_SECONDS, STATEMENT_SECONDS, ANSWER_SECONDS, CONNECT_SECONDS = 10, 15, 20, 25, 10

_OTHER_SPELLINGS = {"postgres": "postgresql+psycopg", "mariadb": "mysql+pymysql"}
_NOT_A_DATABASE = ("journal", "grpc", "redis")

# SQLite's locks and shared memory are not kept by these between machines (https://www.sqlite.org/wal.html).
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "fuse.ceph", "fuse.sshfs", "glusterfs", "fuse.glusterfs"}
    | {"lustre", "gpfs", "beegfs", "ocfs2", "gfs2", "orangefs", "pvfs2"}
)
_SECRET_KEY = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)[^&]*", re.IGNORECASE)


def hide_password(url: str) -> str:
    """The URL as it may be shown: `***` stands for the password, also where the URL is malformed.

    >>> hide_password("postgresql://me:secret@host/hpo?sslpassword=secret")
    'postgresql://me:***@host/hpo?sslpassword=***'
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.startswith("sqlite"):
        return url
    address, question, query = rest.partition("?")
    if "@" in rest:
        # The last @, in case the password holds one: rather hide too much.
        credentials, _, tail = rest.rpartition("@")
        user, colon, _ = credentials.partition(":")
        rest = f"{user}:***@{tail}" if colon else rest
    elif not re.fullmatch(r"[^:]*(:\d*)?(/.*)?", address):
        rest = f"{address.partition(':')[0]}:***{question}{query}"
    return _SECRET_KEY.sub(r"\1***", f"{scheme}://{rest}")


def redact(message: str, url: URL) -> str:
    """A driver's message, in one line, in which the URL's password is hidden."""
    raw = url.render_as_string(hide_password=False)
    secrets = {str(url.password or ""), raw.rpartition("@")[0].partition("://")[2].partition(":")[2]}
    secrets.update(part[len(match[1]) :] for match in _SECRET_KEY.finditer(raw) if (part := match[0]))
    for secret in sorted({*secrets, *(unquote(secret) for secret in secrets)}, key=len, reverse=True):
        if secret:
            message = message.replace(secret, "***")
    return " ".join(message.split("\n(Background")[0].split())


def parse_url(text: str) -> URL:
    """Return the URL, a SQLite file's path made absolute, or raise `StorageError` that says how to write it right."""
    shown = hide_password(text)
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    family = scheme.partition("+")[0]
    if family in _NOT_A_DATABASE or text.endswith((".log", ".journal")):
        raise StorageError(
            f"storage: {shown} is no SQL database. Journal files, Redis and the gRPC proxy cannot hold hpo's tables of "
            f"workers, leases and budgets, without which trials get lost or done twice. {EXAMPLES}"
        )
    if family in _OTHER_SPELLINGS:
        right = shown.replace(text.partition("://")[0], _OTHER_SPELLINGS[family], 1)
        raise StorageError(f"storage: the scheme {scheme}:// is not known. Write {right}")
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # `from None`: the parser's own message may quote the password.
        raise StorageError(f"storage: {shown} is not a database URL. {EXAMPLES}") from None
    if family not in DRIVERS:
        raise StorageError(f"storage: {shown} names {family}; hpo works with sqlite, postgresql and mysql. {EXAMPLES}")
    if family == "sqlite":
        return _read_sqlite(url, shown)
    _check_server(url, shown)
    return url


def _read_sqlite(url: URL, shown: str) -> URL:
    if url.host:
        raise StorageError(
            f"storage: {shown} has too few slashes: three before a relative path (sqlite:///studies/hpo.db), four "
            "before an absolute one (sqlite:////home/me/studies/hpo.db)."
        )
    path = url.database or ":memory:"
    if path == ":memory:" or path.startswith("file:"):
        raise StorageError(f"storage: {shown} is no file that several workers could share. {EXAMPLES}")
    file = Path(path).expanduser().absolute()
    kind = network_file_system(file.parent)
    if kind is not None:
        raise StorageError(
            f"storage: {file} is on a network file system ({kind}), where SQLite loses data when several processes "
            "write. Use a folder on a local disk (HPO_HOME moves all results), or PostgreSQL for several machines."
        )
    return url.set(database=str(file))


def _check_server(url: URL, shown: str) -> None:
    """Raise `StorageError` for a server's URL without host, with an unescaped @, or without its driver installed."""
    if url.host is None and not url.query:
        raise StorageError(f"storage: {shown} names no host. {EXAMPLES}")
    if "@" in (url.host or ""):
        raise StorageError(f"storage: in {shown}, the password holds an @: write it as %40 (and / as %2F, : as %3A).")
    family, driver = url.get_backend_name(), url.get_driver_name()
    if driver != DRIVERS[family]:
        right = shown.replace(url.drivername, f"{family}+{DRIVERS[family]}", 1)
        raise StorageError(
            f"storage: {shown} names the driver {driver}; hpo works with {DRIVERS[family]}, which lets it bound how "
            f"long a silent server is waited for. Write {right}"
        )
    if find_spec(driver) is None:
        raise StorageError(
            f"storage: {shown} needs the driver {driver}, which is not installed: pip install 'hpo-finetune[{family}]'"
        )


def engine_options(url: URL) -> dict[str, Any]:
    """What SQLAlchemy's `create_engine` is given for this URL.

    No wait is without end: not for a connection, not for a lock, not for a server that takes what it is sent and
    never answers. A dead connection is found before use, and costs `ANSWER_SECONDS` and a connection at most.
    """
    backend = url.get_backend_name()
    if backend == "sqlite":
        # SQLite's usual 5 s lost a commit at 16 processes; 60 s lost none.
        return {"connect_args": {"timeout": 60.0}}
    # A dropped connection is found and replaced before use; a read sees what was committed before it, so that the
    # count of trials under the study's lock is exact on MySQL too.
    options: dict[str, Any] = {"pool_pre_ping": True, "isolation_level": "READ COMMITTED"}
    if backend == "postgresql":
        limits = {
            "lock_timeout": LOCK_SECONDS,
            "statement_timeout": STATEMENT_SECONDS,
            "idle_in_transaction_session_timeout": IDLE_SECONDS,
        }
        own = url.query.get("options", "")
        settings = " ".join(
            [str(own), "-c timezone=UTC", *(f"-c {name}={seconds}s" for name, seconds in limits.items())]
        ).strip()
        given = {"connect_timeout": CONNECT_SECONDS, "options": settings}
        return {**options, "module": with_response_timeout(ANSWER_SECONDS), "connect_args": given}
    setup = (
        f"SET SESSION innodb_lock_wait_timeout = {LOCK_SECONDS}, lock_wait_timeout = {LOCK_SECONDS}, "
        f"time_zone = '+00:00' /*M!100304 , idle_transaction_timeout = {IDLE_SECONDS} */"
    )
    answer = {"read_timeout": ANSWER_SECONDS, "write_timeout": ANSWER_SECONDS}
    return {**options, "connect_args": {"connect_timeout": CONNECT_SECONDS, "init_command": setup, **answer}}


def network_file_system(folder: Path, mounts: str | None = None) -> str | None:
    """The kind of network file system that holds `folder`, or None for a local one.

    `mounts` is the text of Linux's /proc/self/mountinfo, read where not given. Elsewhere nothing is known: None.
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
    place = folder.resolve()
    for parent in (place, *place.parents):
        if parent in kinds:
            return kinds[parent] if kinds[parent] in NETWORK_FILE_SYSTEMS else None
    return None
