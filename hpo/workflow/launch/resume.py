"""Resuming a study: whether it is finished, and whether the configuration still describes the same search."""

from collections.abc import Mapping
from typing import Any

import optuna

from hpo.config.study import StudyConfig
from hpo.core.direction import Direction
from hpo.errors import StudyError, did_you_mean
from hpo.storage.budget import list_studies
from hpo.storage.records.study import StudyRecord, direction_of
from hpo.storage.storage import Storage
from hpo.storage.studies import check_owner
from hpo.tasks.task_data import TaskData
from hpo.workflow.digests import changed_files

# What two studies must share for their values to be comparable.
_COMPARABLE = ("task", "metric", "direction", "max_length", "fidelity", "generation")


def is_finished(study: optuna.Study, config: StudyConfig) -> bool:
    """Return whether the study has its result and `config` asks for no more trials or hours than it had."""
    record = StudyRecord.of(study)
    if record.result is None:
        return False
    had = record.config["budget"]
    more_trials = config.budget.max_trials > had["max_trials"]
    more_hours = had["max_hours"] is not None and (config.budget.max_hours or 1e9) > had["max_hours"]
    return not (more_trials or more_hours)


def existing_study(storage: Storage, config: StudyConfig, data: TaskData, direction: Direction) -> optuna.Study | None:
    """Return the study of this name, None where there is none. Raises `StudyError` when it is of something else."""
    if config.name not in list_studies(storage):
        check_owner(storage, config.name, direction)
        return None
    study = optuna.load_study(study_name=config.name, storage=storage)
    record = StudyRecord.of(study)
    different = _differences(record.study_config.identity(), config.identity())
    if direction_of(study) != direction:
        different.append(f"direction: {direction_of(study)} before, {direction} now")
    different += changed_files(record, config)
    if record.data.fingerprint != data.fingerprint:
        different.append(f"data: other rows ({record.data.sizes} before, {data.sizes} now)")
    if different:
        raise StudyError(
            f"Study '{config.name}' exists and was created from something else:\n  "
            + "\n  ".join(different)
            + "\nGive this one another name (--name NEW), or undo the change. "
            f"With warm_start: [{config.name}], a new study copies the trials that fit it."
        )
    return study


def with_dropped_models(config: StudyConfig, study: optuna.Study) -> StudyConfig:
    """Return `config` without the candidates that were dropped when the study was created."""
    before = StudyRecord.of(study).study_config
    return config.drop_models({model.label: model.dropped for model in before.models})


def source_studies(
    storage: Storage, config: StudyConfig, data: TaskData
) -> tuple[list[optuna.Study], list[optuna.Study]]:
    """Return the studies of `warm_start`: those with comparable values, and the others.

    Raises `StudyError` where one does not exist, or is not comparable (other data, another metric, other rungs) and
    the sampler cannot learn from it.
    """
    known = [study for study in list_studies(storage) if study != config.name] if config.warm_start else []
    same: list[optuna.Study] = []
    others: list[optuna.Study] = []
    for name in config.warm_start:
        if name not in known:
            raise StudyError(f"warm_start: there is no study '{name}' in {storage}.{did_you_mean(name, known)}")
        study = optuna.load_study(study_name=name, storage=storage)
        different = _incomparable(StudyRecord.of(study), config, data)
        if different and config.sampler.get("name", "freeze_thaw") != "freeze_thaw":
            raise StudyError(
                f"warm_start: the trials of '{name}' cannot be copied, their values are not comparable:\n  "
                + "\n  ".join(different)
                + "\nWith sampler: freeze_thaw they inform the search, as far as their ranks agree with this study's."
            )
        (others if different else same).append(study)
    return same, others


def _incomparable(record: StudyRecord, config: StudyConfig, data: TaskData) -> list[str]:
    """Return why the values of the recorded study are not comparable with those of `config` on `data`."""
    before, now = record.study_config.identity(), config.identity()
    different = _differences({key: before[key] for key in _COMPARABLE}, {key: now[key] for key in _COMPARABLE})
    return different + ["data: other rows"] * (record.data.fingerprint != data.fingerprint)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the differences of two configurations, key by key."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _differences(old, new, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}: {_short(old)} before, {_short(new)} now")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 160 else f"{text[:157]}…"
