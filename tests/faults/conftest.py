"""A database of each kind with one study in it."""

from pathlib import Path

import optuna
import pytest

from hpo.study.budget import set_budget
from hpo.study.storage import open_storage
from tests.servers import DATABASES

TRIALS = 12


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database on each kind of server, with the study `study` in it."""
    on_disk = f"sqlite:///{tmp_path / 'hpo.db'}"
    return with_study(on_disk if request.param == "sqlite" else request.getfixturevalue(request.param).url())


def with_study(url: str) -> str:
    storage = open_storage(url)
    set_budget(optuna.create_study(study_name="study", storage=storage, direction="maximize"), TRIALS)
    storage.engine.dispose()
    return url
