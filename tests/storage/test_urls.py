"""Storage URLs: what is wrong is said with the right spelling, and no password is ever shown."""

import pickle
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import create_engine, make_url

from hpo.errors import StorageError
from hpo.storage import urls
from hpo.storage.schema import wait_for_server
from hpo.storage.storage import Storage, open_storage, storage_of
from hpo.storage.urls import hide_password, network_file_system, parse_url, redact

SECRET = "s3cr3t/p@ss{word}"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("hpo.db", "sqlite:////home/me"),
        ("", "sqlite:////home/me"),
        ("postgresql://me:s3cr3t", "is not a database URL"),
        (f"postgresql://me:{SECRET}@host:port/hpo", "is not a database URL"),
        (f"postgresql+psycopg://me:{SECRET}@host/hpo", "write it as %40"),
        (f"postgres://me:{SECRET}@host/hpo", "Write postgresql+psycopg://me:***@host/hpo"),
        (f"mariadb://me:{SECRET}@host/hpo", "Write mysql+pymysql://me:***@host/hpo"),
        (f"oracle://me:{SECRET}@host/hpo", "sqlite, postgresql and mysql"),
        (
            f"postgresql+asyncpg://me:{SECRET.replace('@', '%40')}@host/hpo",
            "Write postgresql+psycopg://me:***@host/hpo",
        ),
        (f"mysql+mysqldb://me:{SECRET.replace('@', '%40')}@host/hpo", "Write mysql+pymysql://me:***@host/hpo"),
        ("mysql+pymysql:///hpo", "has no host"),
        ("sqlite://hpo.db", "three before a relative path"),
        ("sqlite:///:memory:", "not a file that several workers can share"),
        ("sqlite:///file:hpo.db?uri=true", "not a file that several workers can share"),
        ("journal:///studies/journal.log", "not an SQL database"),
        (f"grpc://me:{SECRET}@host:13000", "not an SQL database"),
    ],
)
def test_a_wrong_url_is_told_with_a_right_one_and_without_its_password(url: str, says: str) -> None:
    with pytest.raises(StorageError) as told:
        open_storage(url)
    assert says in str(told.value)
    assert told.value.exit_code == 3
    assert not any(part in str(told.value) for part in ("s3cr3t", "p@ss", "word}"))


def test_a_missing_driver_is_told_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "find_spec", lambda name: None)
    with pytest.raises(StorageError, match=r"pip install 'hpo-finetune\[postgresql\]'"):
        open_storage(f"postgresql+psycopg://me:{SECRET.replace('@', '%40')}@host/hpo")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:pw@host:5432/hpo", "postgresql://me:***@host:5432/hpo"),
        ("postgresql://me:p@w/x:y@host/hpo", "postgresql://me:***@host/hpo"),
        ("postgresql://host/hpo?user=me&password=pw&sslmode=require", None),
        ("postgresql://me@host/hpo", "postgresql://me@host/hpo"),
        ("postgresql://me:secret", "postgresql://me:***"),
        ("mysql+pymysql://host:3306/hpo", "mysql+pymysql://host:3306/hpo"),
        ("sqlite:////home/me@work/a:b/hpo.db", "sqlite:////home/me@work/a:b/hpo.db"),
        ("hpo.db", "hpo.db"),
    ],
)
def test_hide_password(url: str, shown: str | None) -> None:
    expected = "postgresql://host/hpo?user=me&password=***&sslmode=require" if shown is None else shown
    assert hide_password(url) == expected


def test_a_drivers_message_loses_the_password_however_it_is_written() -> None:
    url = make_url("postgresql://me:s%40cret@host/hpo?sslpassword=other")
    message = "could not log in with s@cret, s%40cret or other\nat host"
    assert redact(message, url) == "could not log in with ***, *** or *** at host"


def test_the_path_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_url("sqlite:///studies/hpo.db").database == str(tmp_path / "studies" / "hpo.db")


def test_a_network_file_system_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mounts = (
        "22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
        "40 22 0:35 / /home/shared\\040disk rw - nfs4 server:/export rw,vers=4.2\n"
        "41 40 259:2 / /home/shared\\040disk/local rw - ext4 /dev/sdb rw\n"
    )
    assert network_file_system(Path("/home/shared disk/studies"), mounts) == "nfs4"
    assert network_file_system(Path("/home/shared disk/local/studies"), mounts) is None
    assert network_file_system(Path("/home/me"), mounts) is None
    assert network_file_system(tmp_path) is None
    monkeypatch.setattr(urls, "network_file_system", lambda folder: "nfs4")
    with pytest.raises(StorageError, match=r"network file system \(nfs4\)"):
        open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    assert not (tmp_path / "hpo.db").exists()


def test_an_unreachable_database_is_waited_for_then_told(tmp_path: Path) -> None:
    """The same engine stands for a server: what cannot be connected to, until it can."""
    file = tmp_path / "not yet" / "hpo.db"
    engine = create_engine(f"sqlite:///{file}")
    with pytest.raises(StorageError, match="did not respond for 0 seconds"):
        wait_for_server(engine, wait_seconds=0)
    file.parent.mkdir()
    wait_for_server(engine, wait_seconds=0)
    engine.dispose()


class Driver:
    """What SQLAlchemy needs of a driver whose server never lets anyone in."""

    paramstyle = "format"
    Error = OperationalError = ProgrammingError = InterfaceError = InternalError = sqlite3.OperationalError

    def __init__(self, says: str) -> None:
        self.says = says

    def connect(self, **given: object) -> None:
        raise sqlite3.OperationalError(f"{self.says} (used {given['password']})")


@pytest.mark.parametrize(
    ("says", "told_as"),
    [("Access denied for user 'me'", "refuses"), ("Can't connect to MySQL server", "did not respond for 0 seconds")],
)
def test_a_server_that_does_not_let_us_in_is_told_without_the_password(says: str, told_as: str) -> None:
    driver: Any = Driver(says)
    engine = create_engine("mysql+pymysql://me:s3cr3t@127.0.0.1:1/hpo", module=driver)
    with pytest.raises(StorageError) as told:
        wait_for_server(engine, wait_seconds=0)
    assert told_as in str(told.value) and says in str(told.value)
    assert "mysql+pymysql://me:***@127.0.0.1:1/hpo" in str(told.value) and "s3cr3t" not in str(told.value)


def test_a_database_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "hpo.db").write_text("This is a text, longer than the header of a database file.\n" * 50)
    with pytest.raises(StorageError, match="not a database"):
        open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=str(tmp_path / "file")):
        open_storage(f"sqlite:///{tmp_path / 'file' / 'hpo.db'}")
    with pytest.raises(StorageError, match="/proc/hpo"):
        open_storage("sqlite:////proc/hpo/hpo.db")


def test_braces_in_a_path_are_no_template(tmp_path: Path) -> None:
    open_storage(f"sqlite:///{tmp_path / 'a{b}' / 'hpo.db'}")
    assert (tmp_path / "a{b}" / "hpo.db").exists()


def test_a_storage_is_pickled_by_its_url(storage: Storage, study: optuna.Study) -> None:
    copy = pickle.loads(pickle.dumps(storage))
    assert copy.url == storage.url
    other = optuna.load_study(study_name=study.study_name, storage=copy)
    other.tell(other.ask(), 1.0)
    assert study.trials[0].state == TrialState.COMPLETE
    assert storage_of(other) is copy


def test_a_study_on_another_storage_is_refused() -> None:
    with pytest.raises(StorageError, match="use open_storage"):
        storage_of(optuna.create_study())
