"""Going on with a study: is it finished, and is what is asked for now the same search?"""

from collections.abc import Mapping
from typing import Any

import optuna

from hpo.config.load import load_config
from hpo.config.study import StudyConfig
from hpo.errors import StudyError, did_you_mean
from hpo.storage.budget import list_studies
from hpo.storage.storage import Storage
from hpo.tasks.task_data import TaskData

# What two studies must share for a value of the one to say something in the other.
_MEANING = ("task", "metric", "direction", "max_length", "fidelity", "generation")


def is_finished(study: optuna.Study, config: StudyConfig) -> bool:
    """Whether the study has its result and the configuration asks for no more trials or hours than it had."""
    if not study.user_attrs.get("result"):
        return False
    had = study.user_attrs["config"]["budget"]
    more_trials = config.budget.max_trials > had["max_trials"]
    more_hours = had["max_hours"] is not None and (config.budget.max_hours or 1e9) > had["max_hours"]
    return not (more_trials or more_hours)


def existing_study(storage: Storage, config: StudyConfig, data: TaskData) -> optuna.Study | None:
    """The study of this name, if there is one. Raises `StudyError` when it was made from something else."""
    if config.name not in list_studies(storage):
        return None
    study = optuna.load_study(study_name=config.name, storage=storage)
    if "config" not in study.user_attrs:
        return None  # killed while it was being created
    before = load_config(study.user_attrs["config"]).identity()
    now = config.identity()
    different = _differences(before, now)
    if study.user_attrs["data"]["fingerprint"] != data.fingerprint:
        different.append(f"data: other rows ({study.user_attrs['data']['sizes']} before, {data.sizes} now)")
    if different:
        raise StudyError(
            f"Study '{config.name}' exists and was made from something else:\n  "
            + "\n  ".join(different)
            + "\nGive this one another name (--name NEW), or undo the change. "
            f"With warm_start: [{config.name}], a new study takes over the trials that fit it."
        )
    return study


def with_dropped_models(config: StudyConfig, study: optuna.Study) -> StudyConfig:
    """`config` without the candidates that were dropped when the study was begun: its models are what they were."""
    before = load_config(study.user_attrs["config"])
    return config.drop_models({model.label: model.dropped for model in before.models})


def earlier_studies(
    storage: Storage, config: StudyConfig, data: TaskData
) -> tuple[list[optuna.Study], list[optuna.Study]]:
    """The studies that `config` names to start from: those whose values mean the same, and the others.

    Raises `StudyError` where there is none, or where one means something else (other data, another metric, other rungs)
    and the sampler cannot learn from it all the same.
    """
    known = [study for study in list_studies(storage) if study != config.name] if config.warm_start else []
    same: list[optuna.Study] = []
    others: list[optuna.Study] = []
    for name in config.warm_start:
        if name not in known:
            raise StudyError(f"warm_start: there is no study '{name}' in {storage}.{did_you_mean(name, known)}")
        study = optuna.load_study(study_name=name, storage=storage)
        different = _other_meaning(study, config, data)
        if different and config.sampler.get("name", "freeze_thaw") != "freeze_thaw":
            raise StudyError(
                f"warm_start: the trials of '{name}' cannot be taken over, their values mean something else:\n  "
                + "\n  ".join(different)
                + "\nWith sampler: freeze_thaw they are evidence, as far as their ranks agree with this study's."
            )
        (others if different else same).append(study)
    return same, others


def _other_meaning(study: optuna.Study, config: StudyConfig, data: TaskData) -> list[str]:
    """Why a value of `study` says something else than one of `config` on `data`."""
    before, now = load_config(study.user_attrs["config"]).identity(), config.identity()
    different = _differences({key: before[key] for key in _MEANING}, {key: now[key] for key in _MEANING})
    return different + ["data: other rows"] * (study.user_attrs["data"]["fingerprint"] != data.fingerprint)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two configurations, key by key."""
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
