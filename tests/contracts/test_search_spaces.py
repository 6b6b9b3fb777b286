"""Each ready-made search space is read, and a first trial of it is one that training takes."""

from pathlib import Path

import optuna
import pytest

from hpo.core.config import load_config
from hpo.study.suggest import suggest
from hpo.tasks import TASKS

SPACES = sorted(path.stem for path in (Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))


@pytest.mark.parametrize("name", SPACES)
def test_it_is_read_and_sampled(name: str) -> None:
    config = load_config({"name": "n", "data": "d.csv", "models": ["org/a"], "search_space": name})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    params = [suggest(study.ask(), config.search_space, config.labels) for _ in range(5)]
    assert len({one.learning_rate for one in params}) == 5


def test_each_task_has_one() -> None:
    assert {task.search_space for task in TASKS.values()} <= set(SPACES)
