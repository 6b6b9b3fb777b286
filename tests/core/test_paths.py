"""Locations of results: any study name maps to one folder directly under runs/."""

from pathlib import Path

import pytest

from hpo.config.validation import check_study_name
from hpo.core.paths import default_storage, folder_name, home, named_folder

NAMES = [
    "reviews",
    "a/b",
    "a-b",
    "..",
    ".",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\windows",
    "~root",
    "\"quoted\" 'name'",
    "$(reboot); `ls`",
    "größe 日本語",
    "日本語",
    "line\nbreak",
    ".hidden",
    "-rf",
    "x" * 512,
    "x" * 511 + "y",
    "REVIEWS",
]


def test_each_name_has_a_safe_folder_of_its_own() -> None:
    folders = [named_folder(check_study_name(name)) for name in NAMES]
    assert len(set(folders)) == len(NAMES)
    for folder in folders:
        assert folder.resolve().parent == (home() / "runs").resolve()
        assert len(folder.name) <= 100
        assert folder.name.isascii() and not folder.name.startswith((".", "-"))
    assert folder_name("reviews") == "reviews"


def test_hpo_home_and_hpo_storage_set_the_locations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "elsewhere"))
    assert default_storage() == f"sqlite:///{tmp_path}/elsewhere/hpo.db"
    monkeypatch.setenv("HPO_STORAGE", "postgresql+psycopg://me@host/hpo")
    assert default_storage() == "postgresql+psycopg://me@host/hpo"
    monkeypatch.delenv("HPO_HOME")
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path / "studies"
