"""A SQLite file that is removed while it is open: processes stop, its content is saved, and its log holds nothing."""

import sqlite3
from pathlib import Path

import optuna
import pytest

from hpo.storage.database_file import DatabaseRemoved
from hpo.storage.storage import Storage, open_storage


@pytest.fixture
def file(tmp_path: Path, empty_database: Path) -> Path:
    path = tmp_path / "hpo.db"
    path.write_bytes(empty_database.read_bytes())
    return path


def search(file: Path) -> tuple[Storage, optuna.Study]:
    """Return a storage and a study with one complete trial in `file`."""
    storage = open_storage(f"sqlite:///{file}")
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    return storage, study


@pytest.mark.parametrize("replaced", [False, True])
def test_removed_file_is_reported_and_what_it_held_is_saved(file: Path, replaced: bool) -> None:
    storage, study = search(file)
    for path in file.parent.glob("hpo.db*"):
        path.unlink()
    if replaced:
        file.touch()
    for use in (study.ask, lambda: study.get_trials(), lambda: study.set_user_attr("a", 1)):
        with pytest.raises(DatabaseRemoved, match="replaced" if replaced else "removed"):
            use()
    assert file.exists() is replaced
    copy = storage.save_copy()
    storage.engine.dispose()
    assert copy is not None
    copy.rename(file)
    saved = optuna.load_study(study_name="s", storage=open_storage(f"sqlite:///{file}"))
    assert [trial.value for trial in saved.trials] == [study.best_value for study in [saved]]


def test_finished_trial_is_in_the_file_itself(file: Path, tmp_path: Path) -> None:
    """As after a kill and the removal of the write-ahead log."""
    storage, _ = search(file)
    (tmp_path / "copy.db").write_bytes(file.read_bytes())
    connection = sqlite3.connect(tmp_path / "copy.db")
    assert connection.execute("SELECT state FROM trials").fetchall() == [("COMPLETE",)]
    connection.close()
    storage.engine.dispose()
