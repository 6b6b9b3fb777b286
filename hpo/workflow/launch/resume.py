"""Resuming a study: whether it is finished, and whether the configuration still describes the same search."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from hpo.config.study import StudyConfig
from hpo.core.direction import Direction
from hpo.errors import StudyError, did_you_mean
from hpo.storage.budget import list_studies
from hpo.storage.records.digests import changed_files
from hpo.storage.records.study import StudyRecord, direction_of
from hpo.storage.storage import Storage
from hpo.storage.studies import check_owner
from hpo.tasks.task_data import TaskData

# What two studies must share for their values to be comparable.
_COMPARABLE = ("task", "metric", "direction", "max_length", "fidelity", "generation")


# Keys of which a change has no effect once a study is created, each with the reason.
_WITHOUT_EFFECT = {
    "rank": "the models are ranked before the first trial only",
    "warm_start": "trials are copied when a study is created; name a new study with it (--name NEW)",
}
STAGES = ("confirm", "refit", "keep_adapter")  # decide what is done after the search: a change does it again


def is_finished(study: optuna.Study, config: StudyConfig) -> bool:
    """Return whether the study has its result, and `config` asks for nothing more than it had.

    More are trials, hours, and another confirm stage or final model.
    """
    record = StudyRecord.of(study)
    if record.result is None:
        return False
    before, now, had = record.config, config.redacted(), record.config["budget"]
    if any(before.get(key) != now.get(key) for key in STAGES):
        return False
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


def changes(study: optuna.Study, config: StudyConfig) -> list[str]:
    """Return what `config` changes of a study that is resumed, each with its effect."""
    record = StudyRecord.of(study)
    before, now = record.study_config.redacted(), config.redacted()
    found = []
    for key in now:
        if before[key] == now[key] or key in ("name", "portfolio", "data", *config.identity()):
            continue
        effect = f"has no effect: {_WITHOUT_EFFECT[key]}" if key in _WITHOUT_EFFECT else "is applied"
        if key == "first_trials":
            room = config.budget.max_trials - len(study.get_trials(deepcopy=False))
            effect = f"{'is applied' if room > 0 else 'has no effect: the trials of the budget exist (--trials N)'}"
        if key == "budget" and config.budget.max_trials < len(study.get_trials(deepcopy=False)):
            effect = "is applied: no further trial, as more than max_trials exist"
        found += [f"{line}: {effect}" for line in _differences({key: before[key]}, {key: now[key]})]
    return found


def as_recorded(config: StudyConfig, study: optuna.Study) -> StudyConfig:
    """Return `config` with models and choices in the recorded order, without the candidates that were dropped.

    A sampler identifies choices by their position.
    """
    before = StudyRecord.of(study).study_config
    models = tuple(config.model_ref(model.label) for model in before.models)
    config = config.model_copy(update={"models": models, "search_space": before.search_space})
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
    """Return the differences of two configurations, key by key. The order of models and of choices is none."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old == new or (prefix == "search_space." and _same_choices(old, new)):
            continue
        if key == "models":
            found += _differing_models(old or (), new or ())
        elif isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _differences(old, new, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}: {_short(old)} before, {_short(new)} now")
    return found


def _same_choices(old: Any, new: Any) -> bool:
    """Whether two parameters of a search space differ in the order of their choices only."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() == new.keys() and all(
            old[key] == new[key] or _same_choices(old[key], new[key]) for key in old
        )
    if not isinstance(old, list | tuple) or not isinstance(new, list | tuple):
        return False
    return sorted(map(repr, old)) == sorted(map(repr, new))


def _differing_models(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return which models were added, removed, or are loaded in another way."""
    before, now = ({model["label"]: dict(model) for model in models} for models in (old, new))
    found = [f"models: added {label}" for label in now if label not in before]
    found += [f"models: removed {label}" for label in before if label not in now]
    for label in before.keys() & now.keys():
        found += _differences(before[label], now[label], f"models.{label}.")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 160 else f"{text[:157]}…"
