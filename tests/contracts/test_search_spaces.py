"""Each ready-made search space can be sampled, contains its first trials, and its trials can be trained."""

import math
from pathlib import Path

import optuna
import pytest

from hpo.config.first_trials import ModelTraits
from hpo.config.load import load_config
from hpo.config.study import DataConfig
from hpo.search.first_trials import first_trials
from hpo.search.suggest import suggest
from hpo.tasks.registry import TASKS
from hpo.training.fine_tune import FineTuning
from hpo.workflow.init import write_study_file
from tests.contracts.task_data import CASES, write_rows
from tests.contracts.test_tasks import make_plan

SPACES = sorted(path.stem for path in (Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))


@pytest.mark.parametrize("name", SPACES)
def test_it_can_be_sampled(name: str) -> None:
    config = load_config({"name": "n", "data": "d.csv", "models": ["org/a"], "search_space": name})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    params = [suggest(study.ask(), config.search_space, config.labels) for _ in range(5)]
    assert len({one.learning_rate for one in params}) == 5


@pytest.mark.parametrize("name", SPACES)
def test_it_contains_its_first_trials(name: str) -> None:
    """Unchanged: `hpo init` writes them into study files, where none is moved into the space."""
    config = load_config({"name": "n", "data": "d.csv", "models": ["org/a"], "search_space": name})
    entries = tuple({**entry, "when": {}} for entry in config.portfolio)
    written = config.model_copy(update={"first_trials": entries})
    assert first_trials(written, {"org/a": ModelTraits(6)}).points  # raises for one that is outside


@pytest.mark.parametrize("name", [n if n.endswith("lora") else pytest.param(n, marks=pytest.mark.slow) for n in SPACES])
def test_a_trial_of_it_trains(name: str, tmp_path: Path) -> None:
    config = load_config({"name": "n", "data": "d.csv", "models": ["org/a"], "search_space": name})
    task = next((task for task in TASKS.values() if task.search_space == name), TASKS["text-classification"])
    data = task.prepare(DataConfig(path=str(write_rows(task.name, tmp_path / "rows"))), 0)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    params = suggest(study.ask(), config.search_space, config.labels).model_dump(exclude={"model", "epochs"})
    plan = make_plan(task.name, CASES[task.name].quick, data, tmp_path, **params, epochs=1)
    reports = list(FineTuning(plan).reports())
    assert len(reports) == 1 and math.isfinite(reports[0].train_loss)


def test_each_task_has_a_ready_made_space() -> None:
    assert {task.search_space for task in TASKS.values()} <= set(SPACES)


@pytest.mark.parametrize("task", TASKS)
def test_init_writes_the_space_of_the_task(task: str, tmp_path: Path) -> None:
    path = write_study_file(str(write_rows(task, tmp_path / "rows")), ["org/a"], output=tmp_path / "study.yaml")
    config = load_config(path)
    suited = "small-data" if TASKS[task].search_space == "text-encoders" else TASKS[task].search_space  # of 64 rows
    ready = load_config({"name": "n", "data": "d.csv", "models": ["org/a"], "search_space": suited})
    assert config.task == task
    assert (config.search_space, config.first_trials) == (ready.search_space, ready.portfolio)
