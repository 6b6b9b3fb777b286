"""The studies of a database: listed, opened by name, their progress, their best configuration so far."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial

from hpo.core.direction import loss_sign
from hpo.core.paths import OWNER, home
from hpo.errors import StorageError, StudyError, did_you_mean
from hpo.storage import budget
from hpo.storage.records.final_model import FinalModel
from hpo.storage.records.study import StudyRecord, complete_trials, direction_of
from hpo.storage.records.trial import TrialRecord
from hpo.storage.status import StudyStatus, read_status
from hpo.storage.storage import Storage, open_storage
from hpo.storage.studies import remove_orphans

if TYPE_CHECKING:
    import pandas as pd

# How a study is lost without an error: SQLite opens a database without its log as what it was before.
NOT_IN_DATABASE = (
    "that this database does not hold. If it did, its file was removed or replaced, or its write-ahead log "
    "(hpo.db-wal) was removed: restore both from a backup."
)


def list_studies(storage: str | None = None) -> list[StudyStatus]:
    """Return the status of every study, the latest last. What a study deleted by Optuna left behind is removed.

    `storage` is the database's URL; None: `HPO_STORAGE`, else `studies/hpo.db`. Raises `StorageError`.
    """
    database = open_storage(storage)
    with suppress(StorageError):  # of a database that cannot be written
        remove_orphans(database)
    return [read_status(database, name) for name in budget.list_studies(database)]


def status(name: str | None = None, storage: str | None = None) -> StudyStatus:
    """Return the progress of study `name`, or of the latest one, and the disk space it uses on this machine.

    Raises `StudyError` for an unknown study.
    """
    database = open_storage(storage)
    return read_status(database, open_study(database, name).study_name, disk=True)


def open_study(storage: Storage, name: str | None) -> optuna.Study:
    """Open the study `name`, or the latest one. Raises `StudyError`."""
    known = budget.list_studies(storage)
    if not known:
        left = sorted(path.parent for path in (home() / "runs").glob(f"*/{OWNER}"))
        if left:
            raise StudyError(f"There are no studies. {left[-1]} has the files of one {NOT_IN_DATABASE}")
        raise StudyError("There are no studies yet. Start one with `hpo init DATA`, then `hpo run STUDY.yaml`.")
    if name is None:
        name = known[-1]
    if name not in known:
        some = ", ".join(known[-5:])
        raise StudyError(f"There is no study '{name}'.{did_you_mean(name, known)} The latest are: {some}.")
    return optuna.load_study(study_name=name, storage=storage)


def find_trial(study: optuna.Study, number: int) -> FrozenTrial:
    """Return trial `number` of a study. Raises `StudyError` where there is none."""
    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise StudyError(f"'{study.study_name}' has no trial {number}; its trials are 0 to {len(trials) - 1}.")
    return trials[number]


def best_configuration(name: str | None, storage: str | None) -> dict[str, Any]:
    """Return the winner of a study, or its best trial so far: trial, value, metric, params, first_trial.

    `first_trial` is the configuration as another study's `first_trials` take it. Raises `StudyError` when no trial is
    complete.
    """
    study = open_study(open_storage(storage), name)
    record = StudyRecord.of(study)
    if record.result is not None:
        winner = record.result.winner
        trial, value, params = winner.trial, winner.mean, winner.params
    else:
        complete = [trial for trial in complete_trials(study) if TrialRecord.of(trial).is_resolved]
        if not complete:
            raise StudyError(f"No trial of '{study.study_name}' is complete yet; see `hpo status`.")
        trial, value, params = complete[0].number, float(complete[0].value or 0.0), TrialRecord.of(complete[0]).params
    kept = {key: value for key, value in params.items() if value is not None}
    return {"trial": trial, "value": value, "metric": record.metric, "params": params, "first_trial": kept}


def leaderboard(study: optuna.Study, result: FinalModel | None) -> "pd.DataFrame":
    """Return the trials of a study as a table, best first; see `Result.leaderboard`."""
    import pandas as pd

    confirmed = {trial.trial: trial for trial in result.confirmed} if result else {}
    order = {number: rank for rank, number in enumerate(confirmed)}
    rows = []
    for trial in study.get_trials(deepcopy=False):
        again = confirmed.get(trial.number)
        row = {
            "trial": trial.number,
            "state": trial.state.name.lower().replace("fail", "failed"),
            "value": trial.value,
            "confirmed": again.mean if again and again.values else None,
            "std": again.std if again and again.values else None,
            "seeds": len(again.values) if again else 0,
            "seconds": trial.duration.total_seconds() if trial.duration else None,
        }
        rows.append({**row, **TrialRecord.of(trial).params})
    sign = loss_sign(direction_of(study))
    worst = float("inf")
    rows.sort(
        key=lambda row: (
            order.get(row["trial"], len(order)),
            worst if row["value"] is None or row["state"] != "complete" else sign * row["value"],
            row["trial"],
        )
    )
    return pd.DataFrame(rows).set_index("trial") if rows else pd.DataFrame()
