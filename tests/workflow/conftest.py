"""A small study of two tiny models: seconds to search, confirm and retrain."""

from pathlib import Path
from typing import Any

import pytest

import hpo
from tests.small_models import save_bert, write_reviews


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and two models of different depth."""
    folder = tmp_path_factory.mktemp("workshop")
    write_reviews(folder / "reviews", train=240)
    save_bert(folder / "shallow", layers=1, seed=1)
    save_bert(folder / "deep", layers=3, seed=2)
    return folder


@pytest.fixture
def study(workshop: Path) -> dict[str, Any]:
    """A study of them, as a user writes it in Python."""
    return {
        "name": "reviews",
        "data": str(workshop / "reviews"),
        "models": [str(workshop / "shallow"), str(workshop / "deep")],
        "search_space": {
            "learning_rate": {"low": 1e-3, "high": 3e-2, "log": True},
            "batch_size": [8, 16],
            "epochs": {"low": 1, "high": 3},
            "frozen_layers": {"share": [0, 1]},
        },
        "first_trials": [{"learning_rate": 1e-2, "epochs": 3}],
        "budget": {"max_trials": 5},
        "confirm": {"top": 2, "seeds": 2},
        "backend": "inline",
        "devices": "cpu",
    }


@pytest.fixture
def result(study: dict[str, Any]) -> hpo.Result:
    """The result of the study."""
    return hpo.run(study)


@pytest.fixture
def one_trial(study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{tmp_path / 'hpo.db'}")
    return study | {"budget": {"max_trials": 1}, "confirm": {"top": 1, "seeds": 1}, "pruner": "none"}


@pytest.fixture
def folded(study: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The study with 90 training rows in three folds, and 32 for test."""
    reviews = tmp_path / "reviews"
    reviews.mkdir()
    for split, rows in (("train", 90), ("test", 32)):
        lines = (Path(study["data"]) / f"{split}.csv").read_text().splitlines()
        (reviews / f"{split}.csv").write_text("\n".join(lines[: rows + 1]))
    return {**study, "data": {"path": str(reviews), "folds": 3}}
