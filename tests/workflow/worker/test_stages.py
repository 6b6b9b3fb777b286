"""The seconds of a study's hours that are reserved for the stages after the search."""

from datetime import datetime, timedelta
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from hpo.config.constraints import Constraints, Footprint
from hpo.config.load import load_config
from hpo.config.study import StudyConfig
from hpo.storage.records.final_model import DataRecord
from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import TrialRecord
from hpo.workflow.worker.stages import (
    CONFIRM_SHARE,
    FINAL_SECONDS,
    ReservedSeconds,
    has_confirmed_trial,
    reserve_seconds,
)

BEGAN = datetime(2026, 1, 1)


def trial(value: float, trained: float, lasted: float, **recorded: Any) -> FrozenTrial:
    return FrozenTrial(
        number=0,
        trial_id=0,
        state=TrialState.COMPLETE,
        value=value,
        datetime_start=BEGAN,
        datetime_complete=BEGAN + timedelta(seconds=lasted),
        params={},
        distributions={},
        **TrialRecord(seconds={"train": trained - 1, "evaluate": 1.0}, **recorded).attributes(),
        intermediate_values={},
    )


@pytest.fixture
def config() -> StudyConfig:
    return load_config({"name": "study", "data": "data", "models": ["model"], "confirm": {"top": 3, "seeds": 2}})


@pytest.fixture
def search() -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    StudyRecord(data=DataRecord(sizes={"train": 100, "validation": 50, "test": 50})).save(study)
    return study


DAY = 86_400.0


def test_nothing_is_reserved_before_a_trial_is_complete(search: optuna.Study, config: StudyConfig) -> None:
    assert reserve_seconds(search, config, 2, DAY) == ReservedSeconds(0, 0)


def test_startup_of_a_process_is_not_counted_for_later_runs(search: optuna.Study, config: StudyConfig) -> None:
    search.add_trials([trial(0.9, 10, 40), trial(0.8, 10, 11), trial(0.7, 4, 5), trial(0.6, 100, 101)])
    # 11, 11 and 5 seconds on two seeds: 11, 5 and 11 by one of two workers; then the longest on half as many rows more.
    assert reserve_seconds(search, config, 2, DAY) == ReservedSeconds(27, 1.5 * 11 + FINAL_SECONDS, 11)
    assert reserve_seconds(search, config, 1, DAY) == ReservedSeconds(54, 1.5 * 11 + FINAL_SECONDS, 11)


def test_confirming_gets_a_share_of_few_hours_and_at_least_one_run(search: optuna.Study, config: StudyConfig) -> None:
    search.add_trials([trial(0.9, 10, 11), trial(0.8, 10, 11), trial(0.7, 4, 5)])
    assert reserve_seconds(search, config, 1, 100).confirm == CONFIRM_SHARE * 100
    assert reserve_seconds(search, config, 1, 20).confirm == 11


def test_without_refit_only_the_evaluation_is_reserved(search: optuna.Study, config: StudyConfig) -> None:
    search.add_trials([trial(0.9, 10, 11)])
    kept = load_config({**config.to_dict(), "refit": "none"})
    assert reserve_seconds(search, kept, 2, DAY) == ReservedSeconds(11, FINAL_SECONDS, 11)


def test_waiting_of_a_resumed_trial_is_not_counted(search: optuna.Study, config: StudyConfig) -> None:
    search.add_trials([trial(0.9, 10, 2400, attempt=2), trial(0.8, 10, 12)])
    assert reserve_seconds(search, config, 2, DAY).run == 12


def test_final_training_on_folds_takes_as_long_as_one_run(search: optuna.Study, config: StudyConfig) -> None:
    StudyRecord(data=DataRecord(sizes={"in 5 folds": 100, "test": 50})).save(search)
    search.add_trials([trial(0.9, 10, 11)])
    assert reserve_seconds(search, config, 1, DAY).final == 11 + FINAL_SECONDS


def test_model_beyond_the_constraints_does_not_count_as_confirmed(search: optuna.Study) -> None:
    limits = Constraints(max_latency_ms=10)
    slow, quick = (Footprint(params=1, latency_ms=ms, memory_mb=1.0) for ms in (20.0, 5.0))
    search.add_trials([trial(0.9, 10, 11, footprint=slow)])
    assert not has_confirmed_trial(search, limits)
    search.add_trials([trial(0.8, 10, 11, footprint=quick)])
    assert has_confirmed_trial(search, limits)
