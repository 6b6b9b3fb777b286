"""The public names of `hpo`, and what each of them accepts and returns."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hpo
from hpo.workflow.configure import configure
from tests.small_models import save_bert, write_reviews

ERRORS = (
    *("ConfigError", "DataError", "DeviceLost", "Diverged", "HpoError", "ModelError", "OutOfMemory"),
    *("StorageError", "StudyError", "TrialError"),
)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    write_reviews(folder / "reviews")
    save_bert(folder / "tiny")
    return folder


@pytest.fixture
def small_study(workshop: Path) -> dict[str, Any]:
    return {
        "name": "reviews",
        "data": str(workshop / "reviews"),
        "models": [str(workshop / "tiny")],
        "search_space": {"learning_rate": {"low": 1e-3, "high": 3e-2, "log": True}, "epochs": 2},
        "first_trials": [{"learning_rate": 1e-2}],
        "budget": {"max_trials": 2},
        "confirm": {"top": 1, "seeds": 1},
        "backend": "inline",
        "devices": "cpu",
    }


def test_dir_shows_the_public_names_and_nothing_else() -> None:
    assert "workflow" in vars(hpo)  # a submodule that was imported is not shown
    assert dir(hpo) == hpo.__all__
    assert not [name for name in dir(hpo) if name.startswith("_") and name != "__version__"]
    for name in hpo.__all__:
        assert getattr(hpo, name) is not None
        if name != "__version__":
            assert getattr(hpo, name).__name__ == name
            assert getattr(hpo, name).__doc__
    assert all(issubclass(getattr(hpo, name), hpo.HpoError) for name in ERRORS)


def test_import_loads_no_library() -> None:
    heavy = "torch transformers optuna datasets pandas rich sqlalchemy evaluate sklearn pydantic numpy"
    script = f"import sys, hpo; print([name for name in '{heavy}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_quiet_prints_nothing(small_study: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    hpo.run(small_study, quiet=True)
    assert capfd.readouterr() == ("", "")
    hpo.run(small_study)
    assert "is finished" in capfd.readouterr().out


def test_a_table_alone_is_a_study_with_the_metric_that_suits_it(
    small_study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    texts = [f"a {'good' if n % 5 else 'bad'} film, the {n}th" for n in range(200)]
    table = pd.DataFrame({"text": texts, "label": ["yes" if n % 5 else "no" for n in range(200)]})
    models = f"models=[{small_study['models'][0]}]"
    config = configure(table, [models, "budget.max_trials=3"], name="films")
    assert (config.name, config.task, config.metric) == ("films", "text-classification", "f1_macro")
    assert config.budget.max_trials == 3 and config.labels == ["tiny"]
    assert configure(table, [models]).name == Path(config.data.path).name
    assert configure(table, [models, "metric=accuracy"]).metric == "accuracy"
