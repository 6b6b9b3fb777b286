"""What is kept back of a study's hours for the stages after the search."""

from datetime import datetime, timedelta

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from hpo.core.config import StudyConfig, load_config
from hpo.workflow.stages import CONFIRM_SHARE, FINAL_SECONDS, Reserve, reserve

BEGAN = datetime(2026, 1, 1)


def trial(value: float, trained: float, lasted: float) -> FrozenTrial:
    return FrozenTrial(
        number=0,
        trial_id=0,
        state=TrialState.COMPLETE,
        value=value,
        datetime_start=BEGAN,
        datetime_complete=BEGAN + timedelta(seconds=lasted),
        params={},
        distributions={},
        user_attrs={"seconds": {"train": trained - 1, "evaluate": 1.0}},
        system_attrs={},
        intermediate_values={},
    )


@pytest.fixture
def config() -> StudyConfig:
    return load_config({"name": "study", "data": "data", "models": ["model"], "confirm": {"top": 3, "seeds": 2}})


@pytest.fixture
def search() -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    study.set_user_attr("data", {"sizes": {"train": 100, "validation": 50, "test": 50}})
    return study


DAY = 86_400.0


def test_nothing_is_kept_back_before_a_trial_is_complete(search: optuna.Study, config: StudyConfig) -> None:
    assert reserve(search, config, 2, DAY) == Reserve(0, 0)


def test_what_a_process_does_once_counts_in_no_other_run(search: optuna.Study, config: StudyConfig) -> None:
    search.add_trials([trial(0.9, 10, 40), trial(0.8, 10, 11), trial(0.7, 4, 5), trial(0.6, 100, 101)])
    # 11, 11 and 5 seconds on two seeds: 11, 5 and 11 by one of two workers; then the longest on half as many rows more.
    assert reserve(search, config, 2, DAY) == Reserve(27, 1.5 * 11 + FINAL_SECONDS)
    assert reserve(search, config, 1, DAY) == Reserve(54, 1.5 * 11 + FINAL_SECONDS)


def test_of_few_hours_confirming_gets_a_part_but_for_one_run(search: optuna.Study, config: StudyConfig) -> None:
    search.add_trials([trial(0.9, 10, 11), trial(0.8, 10, 11), trial(0.7, 4, 5)])
    assert reserve(search, config, 1, 100).confirm == CONFIRM_SHARE * 100
    assert reserve(search, config, 1, 20).confirm == 11


def test_without_a_final_training_only_its_measuring_is_kept_back(search: optuna.Study, config: StudyConfig) -> None:
    search.add_trials([trial(0.9, 10, 11)])
    kept = load_config({**config.to_plain(), "refit": "none"})
    assert reserve(search, kept, 2, DAY) == Reserve(11, FINAL_SECONDS)
