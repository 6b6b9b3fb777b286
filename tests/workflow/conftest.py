"""A small study of two tiny models: seconds to search, confirm and retrain."""

from pathlib import Path
from typing import Any

import pytest

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
    """A study of those as a person would write it in Python."""
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
