"""Fixtures of all tests: no hub, results in a temporary folder, and small models built on the spot."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

# Before any Hugging Face import: nothing may wait for the hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from tests import servers

SHARED = Path(__file__).parents[2] / "shared"
NO_DATA = "the real datasets are not beside this checkout"
NO_EXTRA = "an extra that is not installed here"  # as hpo-finetune[timm], which wants torchvision


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of a test live and die with it."""
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "hpo-home"))
    monkeypatch.delenv("HPO_STORAGE", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)  # tables are as wide as in a pipe, whatever the shell's width was


@pytest.fixture
def shared_datasets() -> Path:
    """The folder of real datasets beside the checkout; the test is skipped where there is none."""
    folder = SHARED / "datasets"
    if not folder.is_dir():
        pytest.skip(NO_DATA)
    return folder


@pytest.fixture(scope="session")
def postgresql() -> Iterator[servers.Server]:
    server = servers.start("postgresql")
    yield server
    server.remove()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[servers.Server]:
    server = servers.start("mariadb")
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgresql_database(postgresql: servers.Server) -> str:
    return postgresql.url()


@pytest.fixture(scope="session")
def mariadb_database(mariadb: servers.Server) -> str:
    return mariadb.url()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failure, unless it needs a GPU, data that a checkout may lack, or such an extra."""
    report = yield
    excused = "gpu" in item.keywords or any(reason in str(report.longrepr) for reason in (NO_DATA, NO_EXTRA))
    if report.skipped and os.environ.get("HPO_CI") and not excused:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report
