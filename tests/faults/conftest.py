"""Fixtures: a database of each kind with one study, and a small study whose search runs in its own processes."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpo.storage.budget import set_budget
from hpo.storage.storage import open_storage
from tests.faults.search import kill_all, study_config, write_command, write_study_inputs
from tests.servers import DATABASES

TRIALS = 12


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database of each kind, which contains the study `study`."""
    file = f"sqlite:///{tmp_path / 'hpo.db'}"
    return with_study(file if request.param == "sqlite" else request.getfixturevalue(request.param).url())


def with_study(url: str) -> str:
    storage = open_storage(url)
    set_budget(optuna.create_study(study_name="study", storage=storage, direction="maximize"), TRIALS)
    storage.engine.dispose()
    return url


@pytest.fixture(scope="session")
def study_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def study_file(study_inputs: Path) -> dict[str, Any]:
    return study_config(study_inputs)


@pytest.fixture
def command(study_file: dict[str, Any], tmp_path: Path) -> list[str]:
    return write_command(tmp_path, study_file)


@pytest.fixture
def home(_home: None) -> Path:
    return Path(os.environ["HPO_HOME"])


@pytest.fixture
def small_disk(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 16 MB, or the size in MB that the test specifies, which servers can read too."""
    folder = Path(tempfile.mkdtemp(prefix="hpo-small-"))
    folder.chmod(0o755)
    root = [] if os.getuid() == 0 else ["sudo", "-n"]
    size = f"size={getattr(request, 'param', 16)}m,mode=1777"
    if subprocess.run([*root, "mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=False).returncode != 0:
        folder.rmdir()
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run([*root, "umount", "-l", str(folder)], check=True)  # a database may still be open here
    folder.rmdir()


@pytest.fixture(autouse=True)
def _kill_all(home: Path) -> Iterator[None]:
    yield
    kill_all(home)
