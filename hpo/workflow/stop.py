"""Stopping the workers of a study, wherever they run, and deleting a study with its files."""

import shlex
import shutil
import time

from hpo.config.study import StudyConfig
from hpo.core.format import count
from hpo.core.paths import checkpoints_folder, folder_owner, run_folder
from hpo.errors import StudyError
from hpo.reporting.console import console
from hpo.storage.budget import request_stop, set_phase
from hpo.storage.optuna_internals import study_id
from hpo.storage.reclaim import reclaim
from hpo.storage.records.study import StudyRecord
from hpo.storage.status import StudyStatus, WorkerStatus, read_status
from hpo.storage.storage import open_storage
from hpo.storage.studies import remove_orphans
from hpo.workflow.studies import open_study

POLL_SECONDS = 0.3


def stop(name: str | None = None, storage: str | None = None, wait_seconds: float = 60.0) -> tuple[WorkerStatus, ...]:
    """Ask all workers of a study, or of the latest one, to save their trials and exit; wait until they have.

    Returns the workers that are still running after `wait_seconds` (suspended, disconnected, or in one very long step):
    each stops at its next heartbeat. Raises `StudyError` for an unknown study and for one that is finished.
    """
    database = open_storage(storage)
    study = open_study(database, name)
    name = study.study_name
    if read_status(database, name).phase == "finished":
        raise StudyError(f"Study '{name}' is finished: there is nothing to stop.")
    request_stop(study)
    until = time.monotonic() + wait_seconds
    while (left := _alive(read_status(database, name))) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    reclaim(database, study)  # the trials of dead workers
    if not left:
        set_phase(study, "stopped")
    return left


def delete(name: str, storage: str | None = None) -> None:
    """Delete a study with its confirming and final runs from the database, and its folder of results.

    Raises `StudyError` for an unknown study, and while workers are running.
    """
    database = open_storage(storage)
    study = open_study(database, name)
    alive = _alive(read_status(database, name))
    if alive:
        raise StudyError(
            f"Study '{name}' has {count(len(alive), 'running worker')} (the first: process {alive[0].pid} on "
            f"{alive[0].host}). First: hpo stop {shlex.quote(name)}"
        )
    record = StudyRecord.of(study)
    database.delete_study(study_id(study))
    remove_orphans(database)
    if record.config.get("checkpoints") is not None:
        _remove_checkpoints(record.study_config, record.identity)
    folder = run_folder(name, record.identity)
    if folder_owner(folder) == record.identity:  # else of another study of this name, in another database
        shutil.rmtree(folder)


def _remove_checkpoints(config: StudyConfig, identity: str) -> None:
    """Remove the checkpoints of a study that keeps them outside its folder; warn about what cannot be removed."""
    from hpo.workflow.context import open_remote_checkpoints  # torch: for such studies only

    remote = open_remote_checkpoints(config, identity, warn=console.warn)
    if remote:
        remote.remove()
    else:
        shutil.rmtree(checkpoints_folder(config.name, identity, config.checkpoints), ignore_errors=True)


def _alive(status: StudyStatus) -> tuple[WorkerStatus, ...]:
    return tuple(worker for worker in status.workers if worker.phase != "gone")
