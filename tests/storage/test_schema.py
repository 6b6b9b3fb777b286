"""The tables: created once, and never changed if they are of another version; locks of SQLite's transactions."""

import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import create_engine, select
from sqlalchemy.exc import OperationalError

from hpo.errors import StorageError
from hpo.storage import schema
from hpo.storage.lease import Worker
from hpo.storage.models import LeaseRow, StudyRow, WorkerRow
from hpo.storage.storage import Storage, open_storage
from tests.storage.conftest import MakeStudy


def execute(url: str, statement: str) -> None:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    with connection:
        connection.execute(statement)
    connection.close()


def contents(url: str) -> str:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    dump = "\n".join(connection.iterdump())
    connection.close()
    return dump


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE hpo_schema SET version = 99", "created by a newer hpo"),
        ("UPDATE hpo_schema SET version = 0", "created by an older hpo"),
        ("UPDATE alembic_version SET version_num = 'v99.0.0.a'", "created by a newer Optuna"),
        ("UPDATE alembic_version SET version_num = 'v2.6.0.a'", "optuna storage upgrade"),
        ("DROP TABLE alembic_version", "created by an older Optuna"),
    ],
)
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_tables_of_another_version_raise_and_are_not_changed(
    url: str, study: optuna.Study, statement: str, message: str
) -> None:
    execute(url, statement)
    before = contents(url)
    with pytest.raises(StorageError, match=message):
        open_storage(url)
    assert contents(url) == before


def test_tables_are_added_to_a_database_of_plain_optuna(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    plain = optuna.storages.RDBStorage(url)
    study = optuna.create_study(study_name="old", storage=plain)
    study.tell(study.ask(), 1.0)
    plain.engine.dispose()
    storage = open_storage(url)
    assert optuna.load_study(study_name="old", storage=storage).best_value == 1.0
    with storage.reading() as session:
        assert session.scalars(select(LeaseRow)).all() == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_interrupted_creation_is_completed(url: str) -> None:
    for statements in (("DELETE FROM hpo_schema", "DROP TABLE hpo_leases"), ("DROP TABLE alembic_version",)):
        for statement in statements:
            execute(url, statement)
        with open_storage(url).reading() as session:
            assert session.scalars(select(LeaseRow)).all() == []


def test_creation_is_retried_if_the_server_ends_the_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if ten seconds pass between two statements on a busy machine."""
    create = schema._create_tables

    def fail(*arguments: Any) -> None:
        monkeypatch.setattr(schema, "_create_tables", create)
        raise OperationalError("SELECT 1", {}, sqlite3.OperationalError("database is locked"))

    monkeypatch.setattr(schema, "_create_tables", fail)
    with open_storage(f"sqlite:///{tmp_path / 'hpo.db'}").reading() as session:
        assert session.scalars(select(LeaseRow)).all() == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_reader_and_writer_do_not_wait_for_each_other(
    url: str, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.storage.storage.engine_options", lambda url: {"connect_args": {"timeout": 0.1}})
    impatient = open_storage(url)
    with impatient.reading() as reader:
        rows = select(StudyRow.max_trials)
        assert reader.scalar(rows) == 10
        with open_storage(url).transaction() as writer:
            writer.get_one(StudyRow, study._study_id).max_trials = 11
            writer.flush()
            assert reader.scalar(rows) == 10  # neither blocked nor dirty
        assert reader.scalar(rows) == 10  # one snapshot for one transaction
    with impatient.reading() as reader:
        assert reader.scalar(rows) == 11
    with open_storage(url).transaction() as writer:
        writer.get(StudyRow, study._study_id)
        # A second writer is blocked from the start of its transaction, before it reads.
        with pytest.raises(StorageError, match="database is locked"), impatient.transaction() as second:
            second.get(StudyRow, study._study_id)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_pragmas_are_set_for_this_engine_only(url: str, storage: Storage) -> None:
    with storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000
    other = create_engine(url)
    with other.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.connection.dbapi_connection.isolation_level == ""  # type: ignore[union-attr]
    other.dispose()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_deleted_study_leaves_no_rows_for_the_next_one(url: str, storage: Storage, study: optuna.Study) -> None:
    worker = Worker(storage, study, "cpu")
    assert worker.claim(study) is not None
    storage.create_child_study("study/confirm", study, 3)
    worker.close()
    plain = optuna.storages.RDBStorage(url)  # as the dashboard opens it
    optuna.delete_study(study_name="study/confirm", storage=plain)
    optuna.delete_study(study_name="study", storage=plain)
    plain.engine.dispose()
    with storage.reading() as session:
        assert not any(session.scalars(select(table)).all() for table in (StudyRow, WorkerRow, LeaseRow))


def test_deleting_a_study_deletes_its_children(storage: Storage, study: optuna.Study) -> None:
    child = storage.create_child_study("study/confirm", study, 3)
    child.tell(child.ask(), state=TrialState.FAIL)
    optuna.delete_study(study_name="study", storage=storage)
    assert storage.get_all_studies() == []


def test_names_and_paths_keep_all_scripts_and_their_case(storage: Storage, make_study: MakeStudy) -> None:
    names = ["Отзывы \N{FIRE}", "Отзывы \N{DROPLET}", "Run", "run"]
    studies = [make_study(name) for name in names]
    assert [study.study_name for study in storage.get_all_studies()] == names
    assert [optuna.load_study(study_name=name, storage=storage)._study_id for name in names] == [
        study._study_id for study in studies
    ]
    worker = Worker(storage, studies[0], "cpu")
    trial = worker.claim(studies[0])
    assert trial is not None
    worker.release(trial, checkpoint="/исследования/\N{FIRE}")
    with storage.reading() as session:
        assert session.scalars(select(LeaseRow.checkpoint)).one() == "/исследования/\N{FIRE}"
    worker.warn("нет места \N{FIRE}")
    worker.close()
    with storage.reading() as session:
        assert session.scalars(select(WorkerRow.warning)).one() == "нет места \N{FIRE}"
