"""What is kept back of a study's hours for the stages after the search."""

from datetime import datetime, timedelta
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from hpo.config.constraints import Constraints
from hpo.config.load import load_config
from hpo.config.study import StudyConfig
from hpo.workflow.stages import CONFIRM_SHARE, FINAL_SECONDS, Reserve, is_one_confirmed, reserve

BEGAN = datetime(2026, 1, 1)


def trial(value: float, trained: float, lasted: float, **attrs: Any) -> FrozenTrial:
    return FrozenTrial(
        number=0,
        trial_id=0,
        state=TrialState.COMPLETE,
        value=value,
        datetime_start=BEGAN,
        datetime_complete=BEGAN + timedelta(seconds=lasted),
        params={},
        distributions={},
        user_attrs={"seconds": {"train": trained - 1, "evaluate": 1.0}, **attrs},
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
    assert reserve(search, config, 2, DAY) == Reserve(27, 1.5 * 11 + FINAL_SECONDS, 11)
    assert reserve(search, config, 1, DAY) == Reserve(54, 1.5 * 11 + FINAL_SECONDS, 11)


def test_of_few_hours_confirming_gets_a_part_but_for_one_run(search: optuna.Study, config: StudyConfig) -> None:
    search.add_trials([trial(0.9, 10, 11), trial(0.8, 10, 11), trial(0.7, 4, 5)])
    assert reserve(search, config, 1, 100).confirm == CONFIRM_SHARE * 100
    assert reserve(search, config, 1, 20).confirm == 11


def test_without_a_final_training_only_its_measuring_is_kept_back(search: optuna.Study, config: StudyConfig) -> None:
    search.add_trials([trial(0.9, 10, 11)])
    kept = load_config({**config.to_dict(), "refit": "none"})
    assert reserve(search, kept, 2, DAY) == Reserve(11, FINAL_SECONDS, 11)


def test_what_a_trial_waited_counts_in_no_other_run(search: optuna.Study, config: StudyConfig) -> None:
    search.add_trials([trial(0.9, 10, 2400, attempt=2), trial(0.8, 10, 12)])
    assert reserve(search, config, 2, DAY).run == 12


def test_a_final_training_on_all_folds_takes_no_longer_than_a_run_on_each(
    search: optuna.Study, config: StudyConfig
) -> None:
    search.set_user_attr("data", {"sizes": {"in 5 folds": 100, "test": 50}})
    search.add_trials([trial(0.9, 10, 11)])
    assert reserve(search, config, 1, DAY).final == 11 + FINAL_SECONDS


def test_a_model_that_breaks_the_constraints_confirms_nothing(search: optuna.Study) -> None:
    limits = Constraints(max_latency_ms=10)
    slow, quick = ({"params": 1, "latency_ms": ms, "memory_mb": 1.0} for ms in (20.0, 5.0))
    search.add_trials([trial(0.9, 10, 11, footprint=slow)])
    assert not is_one_confirmed(search, limits)
    search.add_trials([trial(0.8, 10, 11, footprint=quick)])
    assert is_one_confirmed(search, limits)
