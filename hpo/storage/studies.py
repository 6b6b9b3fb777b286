"""Studies in the database: each created with its record and first trials in one transaction."""

import json
from collections.abc import Sequence
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hpo.core.direction import Direction
from hpo.errors import StudyError
from hpo.storage.models import StudyRow
from hpo.storage.optuna_internals import models
from hpo.storage.records.study import IDENTITY, StudyRecord
from hpo.storage.storage import Storage

__all__ = ["add_study", "check_owner", "remove_children", "remove_orphans"]

_Study: Any = models.StudyModel
_ATTRIBUTES: dict[str, Any] = {
    "user_attrs": models.StudyUserAttributeModel,
    "system_attrs": models.StudySystemAttributeModel,
}


def add_study(
    storage: Storage,
    name: str,
    direction: Direction,
    record: StudyRecord,
    trials: Sequence[FrozenTrial] = (),
    max_trials: int | None = None,
    max_seconds: float | None = None,
) -> bool:
    """Create a study with its record, its budget and its first `trials`, all or nothing.

    Returns False where a study of this name exists, which another process may have created at the same moment: the
    caller compares its record. Raises `StudyError` where that study is not hpo's (`check_owner`).
    """
    try:
        with storage.transaction() as session:
            study = session.scalar(select(_Study).where(_Study.study_name == name).with_for_update())
            if study is not None and session.get(StudyRow, study.study_id) is not None:
                return _identity(session, study.study_id) == record.identity  # after a lost response it is this one
            _check_owner(session, storage, name, direction)
            if study is None:
                study = _add(session, name, [direction])
            for kind, values in record.attributes().items():
                rows = _ATTRIBUTES[kind]
                session.add_all(
                    rows(study_id=study.study_id, key=key, value_json=json.dumps(value))
                    for key, value in values.items()  # type: ignore[attr-defined]
                )
            session.add(StudyRow(study_id=study.study_id, max_trials=max_trials, max_seconds=max_seconds))
            session.flush()
            for trial in trials:
                storage.add_trial_row(study.study_id, trial, session)
    except IntegrityError:  # on a server, two processes insert the name at once: one of them is refused
        return False
    storage.empty_log()
    return True


def check_owner(storage: Storage, name: str, direction: Direction) -> None:
    """Raise `StudyError` where a study of this name exists that is not hpo's to run.

    That is a study that another program created and that has trials, attributes or another direction: its values are
    of another metric. It is also the confirm or final study of another study. An empty one is adopted.
    """
    with storage.reading() as session:
        _check_owner(session, storage, name, direction)


def _check_owner(session: Session, storage: Storage, name: str, direction: Direction) -> None:
    found = session.execute(
        select(_Study.study_id, StudyRow)
        .outerjoin(StudyRow, StudyRow.study_id == _Study.study_id)
        .where(_Study.study_name == name)
    ).one_or_none()
    if found is None:
        return
    study_id, row = found
    rename = "Give this study another name (--name NEW)"
    if row is not None:
        if row.job is not None:
            raise StudyError(
                f"'{name}' in {storage} is part of another study: it holds its {row.phase} runs. {rename}."
            )
        return
    foreign = _why_foreign(session, study_id, direction)
    if foreign:
        raise StudyError(
            f"Study '{name}' in {storage} was not created by hpo, and {foreign}. Its values may be of another metric, "
            f"so it is not continued. {rename}, or delete that one: "
            f"optuna delete-study --study-name '{name}' --storage '{storage}'"
        )


def _why_foreign(session: Session, study_id: int, direction: Direction) -> str:
    """Return why a study that another program created cannot be adopted; empty where it can."""
    trials = session.scalar(select(func.count()).where(models.TrialModel.study_id == study_id))
    if trials:
        return f"it has {trials} trial{'s' * (trials > 1)}"
    rows = session.scalars(
        select(models.StudyDirectionModel.direction).where(models.StudyDirectionModel.study_id == study_id)
    )
    directions = [found.name.lower() for found in rows]
    if directions != [direction]:
        return f"its direction is {' and '.join(directions)}, this study's {direction}"
    for attributes in _ATTRIBUTES.values():
        key = session.scalar(select(attributes.key).where(attributes.study_id == study_id).limit(1))
        if key is not None:
            return f"it has the attribute '{key}' of another program"
    return ""


def _add(session: Session, name: str, directions: Sequence[str]) -> Any:
    rows = [
        models.StudyDirectionModel(direction=StudyDirection[direction.upper()], objective=objective)
        for objective, direction in enumerate(directions)
    ]
    study = _Study(study_name=name, directions=rows)
    session.add(study)
    session.flush()
    return study


def _identity(session: Session, study_id: int) -> str:
    attributes = models.StudySystemAttributeModel
    text = session.scalar(
        select(attributes.value_json).where(attributes.study_id == study_id, attributes.key == IDENTITY)
    )
    return "" if text is None else str(json.loads(text))


def remove_children(storage: Storage, parent: int, phase: str) -> None:
    """Delete the child studies of one purpose (confirm or retrain) of a study, by its key."""
    with storage.reading() as session:
        found = session.scalars(
            select(StudyRow.study_id).where(StudyRow.parent_id == parent, StudyRow.phase == phase)
        ).all()
    for study_id in found:
        storage.delete_study(study_id)


def remove_orphans(storage: Storage) -> list[str]:
    """Delete the confirm and final studies of studies that Optuna or its dashboard deleted; return their names."""
    with storage.reading() as session:
        found = session.execute(
            select(_Study.study_id, _Study.study_name)
            .join(StudyRow, StudyRow.study_id == _Study.study_id)
            .where(StudyRow.job.is_not(None), StudyRow.parent_id.is_(None))
        ).all()
    for study_id, _ in found:
        try:
            storage.delete_study(study_id)
        except KeyError:
            continue  # another process deleted it meanwhile
    return [name for _, name in found]
