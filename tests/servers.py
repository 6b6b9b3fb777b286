"""Private database servers for tests, from Debian's packages, in a temporary folder, on loopback and a free port.

Other servers of the machine are never changed: before each statement, the data folder of the connected server is
checked to be the one that was created here.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import create_engine, text

PASSWORD = "s3cr3t-p@ss"
_START_SECONDS = 300.0  # 2 s on an idle machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A private server. `url()` creates an empty database; other methods cause faults."""

    driver: str
    user: str  # the system user of the server if the tests run as root
    folder_query: str

    def __init__(self, parent: Path | None = None) -> None:
        # Not below pytest's own folder, which only root can read.
        self.folder = Path(tempfile.mkdtemp(prefix="hpo-server-", dir=parent))
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._own(self.folder)
        try:
            self._initialize()
            self.start()
        except BaseException:
            self.remove()
            raise

    def _initialize(self) -> None:
        raise NotImplementedError

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _address(self, database: str) -> str:
        quoted = PASSWORD.replace("@", "%40")
        return f"{self.driver}://hpo:{quoted}@127.0.0.1:{self.port}/{database}"

    def _own(self, path: Path) -> None:
        if os.getuid() == 0:
            shutil.chown(path, self.user)

    def _as_user(self, command: list[str]) -> list[str]:
        return ["runuser", "-u", self.user, "--", *command] if os.getuid() == 0 else command

    def run(self, command: list[str]) -> None:
        done = subprocess.run(self._as_user(command), capture_output=True, text=True, check=False, cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr

    def execute(self, statement: str, database: str | None = None) -> Any:
        """Run a statement as the owner of the server. Returns the first value."""
        engine = create_engine(self._address(database or self.home_database), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                data = Path(str(connection.scalar(text(self.folder_query)))).resolve()
                assert data == self.data.resolve(), f"another server listens on port {self.port}: {data}"
                result = connection.execute(text(statement))
                return result.scalar() if result.returns_rows else None
        finally:
            engine.dispose()

    home_database: str

    def url(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"hpo{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self._address(name)

    def start(self) -> None:
        """Start the server and wait until it responds."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._as_user(self._command()), stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return
            except ModuleNotFoundError:
                raise  # no driver: waiting does not help
            except Exception as error:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise AssertionError((self.folder / "server.log").read_text()[-3000:]) from error
                time.sleep(0.1)

    def _processes(self) -> list[psutil.Process]:
        """The processes of this server only: the one started here and its children."""
        if self._process is None:
            return []
        try:
            first = psutil.Process(self._process.pid)
        except psutil.NoSuchProcess:
            return []
        return [first, *first.children(recursive=True)]

    def signal(self, number: int) -> None:
        """Send a signal to all processes of the server."""
        for process in self._processes():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue  # a connection was closed meanwhile

    def suspend(self) -> None:
        """Suspend the server: the kernel acknowledges what is sent to it, and nothing responds."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a suspended server."""
        self.signal(signal.SIGCONT)

    def crash(self) -> None:
        """Kill all processes at once. The next start recovers from the log."""
        processes = self._processes()
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        psutil.wait_procs(processes, timeout=20)

    def drop_connections(self) -> None:
        """Close the connections of all clients."""
        raise NotImplementedError

    def remove(self) -> None:
        """Kill the server and delete its files."""
        self.resume()
        self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgreSQL(Server):
    driver, user, home_database = "postgresql+psycopg", "postgres", "postgres"
    folder_query = "SHOW data_directory"

    @staticmethod
    def find() -> Path | None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        return found[-1] if found else None

    def _initialize(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        self._own(secret)
        command = ["-D", str(self.data), "-U", "hpo", f"--pwfile={secret}", "--auth=scram-sha-256", "--no-sync"]
        self.run([f"{self.find()}/initdb", *command, "--encoding=UTF8", "--locale=C"])

    def _command(self) -> list[str]:
        # A killed process loses nothing that it wrote. fsync protects from a loss of power.
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": self.port, "fsync": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [f"{self.find()}/postgres", "-D", str(self.data), *options]

    def drop_connections(self) -> None:
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'hpo%'")


class MariaDB(Server):
    driver, user, home_database = "mysql+pymysql", "mysql", "mysql"
    folder_query = "SELECT @@datadir"

    @staticmethod
    def find() -> str | None:
        return shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")

    def _initialize(self) -> None:
        # Run by the server at each start: creates the owner of the databases, with access from this machine only.
        setup = self.folder / "setup.sql"
        setup.write_text(
            f"CREATE USER IF NOT EXISTS hpo@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON *.* TO hpo@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        self._own(setup)
        self.run(["mariadb-install-db", "--no-defaults", f"--datadir={self.data}", "--skip-test-db"])

    def _command(self) -> list[str]:
        options = {
            "datadir": self.data,
            "port": self.port,
            "bind-address": "127.0.0.1",
            "socket": self.folder / "s",
            "pid-file": self.folder / "pid",
            "init-file": self.folder / "setup.sql",
            "innodb-flush-log-at-trx-commit": 2,
            "innodb-buffer-pool-size": "64M",
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        return [str(self.find()), "--no-defaults", *flags, "--skip-name-resolve"]

    def drop_connections(self) -> None:
        engine = create_engine(self._address(self.home_database))
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT id FROM information_schema.processlist WHERE db LIKE 'hpo%'"))
            for (number,) in rows.all():
                try:
                    connection.execute(text(f"KILL {number}"))
                except Exception:
                    continue  # it was closed meanwhile
        engine.dispose()


SERVERS: dict[str, type[PostgreSQL] | type[MariaDB]] = {"postgresql": PostgreSQL, "mariadb": MariaDB}
# Fixture parameters: the quick tests run on SQLite, `make test-faults` on the servers.
DATABASES = ["sqlite", *(pytest.param(name, marks=pytest.mark.server) for name in SERVERS)]


def start(name: str, parent: Path | None = None) -> Server:
    """Start a private server with its files below `parent`. Skips the test if its package is not installed."""
    kind = SERVERS[name]
    if kind.find() is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install postgresql mariadb-server)")
    return kind(parent)
