"""A database of each kind with one study in it; a small study to be searched in processes of its own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpo.study.budget import set_budget
from hpo.study.storage import open_storage
from tests.faults.search import RUNGS, command_for, end_all
from tests.servers import DATABASES
from tests.small_models import save_bert, write_reviews

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


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough rows and epochs that a trial takes a second or two: there is time to strike."""
    folder = tmp_path_factory.mktemp("material")
    write_reviews(folder / "reviews", train=2000)
    save_bert(folder / "bert", layers=2)
    return folder


@pytest.fixture
def study_file(material: Path) -> dict[str, Any]:
    """The study `faulty`: four trials on two workers."""
    rate = {"low": 1e-3, "high": 1e-2, "log": True}
    return {
        "name": "faulty",
        "data": str(material / "reviews"),
        "models": [str(material / "bert")],
        "search_space": {"learning_rate": rate, "epochs": RUNGS, "batch_size": 8},
        "budget": {"max_trials": 4},
        "pruner": "none",
        "confirm": {"top": 1, "seeds": 1},
        "workers": 2,
        "devices": "cpu",
    }


@pytest.fixture
def command(study_file: dict[str, Any], tmp_path: Path) -> list[str]:
    return command_for(tmp_path, study_file)


@pytest.fixture
def home(_home: None) -> Path:
    return Path(os.environ["HPO_HOME"])


@pytest.fixture(autouse=True)
def _nothing_runs_on(home: Path) -> Iterator[None]:
    yield
    end_all(home)
