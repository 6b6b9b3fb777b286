"""Ending things from anywhere: a study's workers, wherever they run, or the study itself with all that it left."""

import shlex
import shutil
import time

from hpo.config.study import StudyConfig, load_config
from hpo.core.paths import checkpoints_folder, run_folder
from hpo.errors import StudyError
from hpo.reporting.console import console
from hpo.storage.budget import request_stop, set_phase
from hpo.storage.reclaim import reclaim
from hpo.storage.status import StudyStatus, WorkerStatus, read_status
from hpo.storage.storage import Storage
from hpo.workflow.result import open_study

POLL_SECONDS = 0.3


def stop_study(storage: Storage, name: str, wait_seconds: float = 60.0) -> tuple[WorkerStatus, ...]:
    """Ask all workers of a study to save their trials and leave; wait until they have, `wait_seconds` at most.

    Returns the workers that are still there (frozen, cut off, or in one very long step): each leaves when it hears
    of it. Raises `StudyError` for an unknown study and for one that is finished.
    """
    study = open_study(storage, name)
    if read_status(storage, name).phase == "finished":
        raise StudyError(f"Study '{name}' is finished: there is nothing to stop.")
    request_stop(study)
    until = time.monotonic() + wait_seconds
    while (left := _alive(read_status(storage, name))) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    reclaim(storage, study)  # what dead workers held
    if not left:
        set_phase(study, "stopped")
    return left


def delete_study(storage: Storage, name: str) -> None:
    """Remove a study with its confirming and final runs from the database, and its folder of results.

    Raises `StudyError` for an unknown study, and while workers are at it.
    """
    study = open_study(storage, name)
    alive = _alive(read_status(storage, name))
    if alive:
        raise StudyError(
            f"{len(alive)} workers are at study '{name}' (the first: process {alive[0].pid} on {alive[0].host}). "
            f"First: hpo stop {shlex.quote(name)}"
        )
    written = study.user_attrs.get("config", {})
    storage.delete_study(study._study_id)
    if written.get("checkpoints") is not None:
        _remove_checkpoints(load_config(written))
    if run_folder(name).exists():
        shutil.rmtree(run_folder(name))


def _remove_checkpoints(config: StudyConfig) -> None:
    """Remove what a study left in a place of its own for checkpoints, or tell what could not be removed."""
    from hpo.workflow.context import open_remote_checkpoints  # torch: for such studies only

    remote = open_remote_checkpoints(config)
    if remote:
        remote.warn = console.warn
        remote.remove()
    else:
        shutil.rmtree(checkpoints_folder(config.name, config.checkpoints), ignore_errors=True)


def _alive(status: StudyStatus) -> tuple[WorkerStatus, ...]:
    return tuple(worker for worker in status.workers if worker.phase != "gone")
