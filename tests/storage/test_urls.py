"""Storage URLs: errors show the correct form, and never a password."""

import pickle
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import create_engine, make_url

from hpo.errors import ConfigError, StorageError
from hpo.storage import urls
from hpo.storage.schema import wait_for_server
from hpo.storage.storage import Storage, open_storage, storage_of
from hpo.storage.urls import hide_password, network_file_system, parse_url

SECRET = "s3cr3t/p@ss{word}"


@pytest.mark.parametrize(
    ("url", "message"),
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
        ("me:s3cr3t@host/hpo", "is not a database URL"),
        ("host=h password=s3cr3t", "is not a database URL"),
        ("postgresql+psycopg:/me:s3cr3t@host/hpo", "is not a database URL"),
        ("sqlite:///:memory:", "not a file that several workers can share"),
        ("sqlite:///file:hpo.db?uri=true", "not a file that several workers can share"),
        ("journal:///studies/journal.log", "not an SQL database"),
        (f"grpc://me:{SECRET}@host:13000", "not an SQL database"),
    ],
)
def test_wrong_url_raises_with_the_correct_form_and_without_the_password(url: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        open_storage(url)
    assert message in str(raised.value)
    assert raised.value.exit_code == 2
    assert not any(part in str(raised.value) for part in ("s3cr3t", "p@ss", "word}"))


def test_missing_driver_raises_with_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'hpo-finetune\[postgresql\]'"):
        open_storage(f"postgresql+psycopg://me:{SECRET.replace('@', '%40')}@host/hpo")


def test_driver_message_has_no_spelling_of_the_password() -> None:
    url = make_url("postgresql://me:s%40cret@host/hpo?sslpassword=other")
    message = "could not log in with s@cret, s%40cret or other\nat host"
    assert hide_password(message, url) == "could not log in with ***, *** or *** at host"


def test_path_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_url("sqlite:///studies/hpo.db").database == str(tmp_path / "studies" / "hpo.db")


def test_network_file_system_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
    with pytest.raises(ConfigError, match=r"network file system \(nfs4\)"):
        open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    assert not (tmp_path / "hpo.db").exists()


def test_unreachable_server_raises_after_the_wait(tmp_path: Path) -> None:
    """A file in a missing folder stands for the server."""
    file = tmp_path / "not yet" / "hpo.db"
    engine = create_engine(f"sqlite:///{file}")
    with pytest.raises(StorageError, match="did not respond for 0 seconds"):
        wait_for_server(engine, wait_seconds=0)
    file.parent.mkdir()
    wait_for_server(engine, wait_seconds=0)
    engine.dispose()


class Driver:
    """A driver that fails to connect, with what SQLAlchemy requires of one."""

    paramstyle = "format"
    Error = OperationalError = ProgrammingError = InterfaceError = InternalError = sqlite3.OperationalError

    def __init__(self, message: str) -> None:
        self.message = message

    def connect(self, **arguments: object) -> None:
        raise sqlite3.OperationalError(f"{self.message} (used {arguments['password']})")


@pytest.mark.parametrize(
    ("message", "meaning"),
    [("Access denied for user 'me'", "refuses"), ("Can't connect to MySQL server", "did not respond for 0 seconds")],
)
def test_refusal_of_a_server_raises_without_the_password(message: str, meaning: str) -> None:
    driver: Any = Driver(message)
    engine = create_engine("mysql+pymysql://me:s3cr3t@127.0.0.1:1/hpo", module=driver)
    with pytest.raises(StorageError) as raised:
        wait_for_server(engine, wait_seconds=0)
    assert meaning in str(raised.value) and message in str(raised.value)
    assert "mysql+pymysql://me:***@127.0.0.1:1/hpo" in str(raised.value) and "s3cr3t" not in str(raised.value)


def test_file_that_is_not_a_database_raises(tmp_path: Path) -> None:
    (tmp_path / "hpo.db").write_text("This is a text, longer than the header of a database file.\n" * 50)
    with pytest.raises(StorageError, match="not a database"):
        open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")


def test_path_that_cannot_be_written_raises(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=str(tmp_path / "file")):
        open_storage(f"sqlite:///{tmp_path / 'file' / 'hpo.db'}")
    with pytest.raises(StorageError, match="/proc/hpo"):
        open_storage("sqlite:////proc/hpo/hpo.db")


def test_braces_in_a_path_are_not_a_template(tmp_path: Path) -> None:
    open_storage(f"sqlite:///{tmp_path / 'a{b}' / 'hpo.db'}")
    assert (tmp_path / "a{b}" / "hpo.db").exists()


def test_folder_with_a_question_mark_is_no_end_of_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "what? 100% {a}#b"
    monkeypatch.setenv("HPO_HOME", str(folder))
    monkeypatch.delenv("HPO_STORAGE", raising=False)
    optuna.create_study(study_name="s", storage=open_storage())
    assert (folder / "hpo.db").is_file() and [file.name for file in tmp_path.iterdir()] == [folder.name]
    again = pickle.loads(pickle.dumps(open_storage()))
    assert len(again.get_all_studies()) == 1
    assert parse_url("sqlite:////home/what?/hpo.db").database == "/home/what?/hpo.db"


def test_file_that_cannot_be_written_is_read_and_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results"
    url = f"sqlite:///{folder / 'hpo.db'}"
    study = optuna.create_study(study_name="s", storage=open_storage(url))
    study.add_trial(optuna.trial.create_trial(value=0.5))  # in the write-ahead log
    # Root may write everything, and only a user who may mount has a read-only file system.
    monkeypatch.setattr(urls.os, "access", lambda path, _mode: Path(path) not in (folder, folder / "hpo.db"))
    before = {file: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}
    reader = open_storage(url)
    assert str(reader) == url and optuna.load_study(study_name="s", storage=reader).best_value == 0.5
    with pytest.raises(StorageError, match="cannot be written: the file, its folder or the file system"):
        optuna.create_study(study_name="t", storage=reader)
    assert {file: file.read_bytes() for file in before} == before


def test_storage_is_pickled_by_its_url(storage: Storage, study: optuna.Study) -> None:
    copy = pickle.loads(pickle.dumps(storage))
    assert copy.url == storage.url
    other = optuna.load_study(study_name=study.study_name, storage=copy)
    other.tell(other.ask(), 1.0)
    assert study.trials[0].state == TrialState.COMPLETE
    assert storage_of(other) is copy


def test_study_on_another_storage_raises() -> None:
    with pytest.raises(StorageError, match="use open_storage"):
        storage_of(optuna.create_study())
