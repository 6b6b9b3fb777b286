"""Runs one leased trial and reports its outcome: complete, pruned, failed, or released for another attempt."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import optuna
from optuna.trial import TrialState

from hpo.errors import DeviceLost, HpoError, StorageError
from hpo.storage.budget import exhaust_budget
from hpo.storage.lease import LeaseLost, Worker
from hpo.storage.optuna_internals import trial_id
from hpo.storage.records.trial import TrialRecord
from hpo.training.checkpoints.checkpoint import fold_folder, latest_checkpoint, remove_checkpoints
from hpo.training.checkpoints.remote import RemoteCheckpoints
from hpo.training.fine_tune import Stopped
from hpo.workflow.callbacks import CallbackList, State
from hpo.workflow.context import Attempt, StudyContext
from hpo.workflow.worker.failures import is_device_lost, is_disk_full, reason_to_fail
from hpo.workflow.worker.learning_curve import remove_learning_curve
from hpo.workflow.worker.stages import stage_folder

log = logging.getLogger("hpo.worker")

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}

TrialObjective = Callable[[optuna.Trial, Attempt], float]


class TrialRun:
    """One trial that `worker` holds the lease of. Once `stop` is set, it is saved and released."""

    def __init__(
        self,
        worker: Worker,
        context: StudyContext,
        study: optuna.Study,
        trial: optuna.Trial,
        stop: threading.Event,
        remote: RemoteCheckpoints | None,
        callbacks: CallbackList,
    ) -> None:
        self._worker = worker
        self._study = study
        self._trial = trial
        self._callbacks = callbacks
        self._device = context.execution.device
        self._folder = context.trial_folder(stage_folder(study), trial.number)
        self._identity = context.identity
        self._folds = len(context.data.folds)
        self._task = context.task.name
        self._remote = remote
        self._attempt = Attempt(worker.attempt, stop, self._record_checkpoint)

    def run(self, objective: TrialObjective) -> None:
        """Call `objective` and report its value; release the trial when stopped; drop it when its lease is lost.

        Raises what this process cannot continue after, once the trial is released or reported: `StorageError` (of the
        database, or a full disk), `DeviceLost`, and any bug.
        """
        trial = self._trial
        try:
            TrialRecord(worker=self._worker.name, attempt=self._worker.attempt).save(trial)
            self._fetch_checkpoints()
            state, value = self._outcome(objective)
            self._finish(state, value)
        except Stopped:
            self._callbacks.release()
            with suppress(LeaseLost):  # reclaimed by another worker, which has its own checkpoint
                self._worker.release(trial, self._worker.checkpoint)
        except LeaseLost:
            log.warning("trial %s was reclaimed by another worker; its result here is dropped", trial.number)
            if self._worker.storage.get_trial(trial_id(trial)).state.is_finished():
                self._clear()  # a suspended worker may have saved after the other one had removed the files
        except StorageError:
            raise  # the trial is released when the worker closes
        except Exception as error:
            self._abandon(error)
        else:
            self._clear()

    def _finish(self, state: TrialState, value: float | None = None) -> None:
        if self._worker.finish(self._study, self._trial, state, value):
            exhaust_budget(self._study)  # the sampler has nothing left to sample
        self._callbacks.on_trial_end(_STATES[state], value)

    def _record_checkpoint(self, path: Path) -> None:
        """Record a checkpoint, by the URL of its copy where the study keeps copies."""
        copy = self._remote.put(path, self._name(path.parent)) if self._remote else None
        self._worker.record_checkpoint(self._trial, copy or str(path))

    def _fetch_checkpoints(self) -> None:
        """Fetch the checkpoint of a trial that ran on another machine; record that it restarts where there is none.

        A trial that no worker held before starts from its first step: files in its folder are not its own.
        """
        recorded = self._worker.checkpoint
        if self._worker.attempt == 1:
            _clear(self._folder)
        if self._worker.attempt == 1 or recorded is None:
            return
        folders = [self._folder, *(fold_folder(self._folder, number + 1) for number in range(self._folds))]
        for folder in folders:
            if self._remote:
                self._remote.fetch(self._name(folder), folder)
        if all(latest_checkpoint(folder, self._identity) is None for folder in folders):
            reason = f"starts again in attempt {self._worker.attempt}: its checkpoint {recorded} cannot be read here"
            log.warning("trial %s %s", self._trial.number, reason)
            TrialRecord(restarted=reason).save(self._trial)

    def _name(self, folder: Path) -> str:
        """Return the name of a checkpoint folder, of the trial or of one of its folds, among the remote copies."""
        return folder.relative_to(self._folder.parent).as_posix()

    def _outcome(self, objective: TrialObjective) -> tuple[TrialState, float | None]:
        """Return the final state and value; an error that costs more than this trial is raised."""
        try:
            return TrialState.COMPLETE, objective(self._trial, self._attempt)
        except optuna.TrialPruned:
            return TrialState.PRUNED, None
        except Exception as error:
            reason = reason_to_fail(error)
            if reason is None:
                raise
        if reason.startswith("ModelError"):
            record = TrialRecord.of(self._worker.storage.get_trial(trial_id(self._trial)))
            model = record.params.get("model", "the model")
            reason = reason.replace("ModelError:", f"ModelError: {model}: {self._task}:", 1)
            log.warning("trial %s failed: %s", self._trial.number, reason)
        # Only outside the except block is the memory of the failed run free again.
        TrialRecord(failure=reason).save(self._trial)
        return TrialState.FAIL, None

    def _abandon(self, error: Exception) -> NoReturn:
        """Release the trial, or fail it for a bug, and raise: after such an error this process cannot continue."""
        if is_disk_full(error):
            with suppress(LeaseLost):
                self._worker.release(self._trial)
            raise StorageError(
                f"The disk is full (writing below {self._folder.parent}). The study is intact: free some space, then "
                "resume with the same command."
            ) from error
        if is_device_lost(error):
            reason = " ".join(str(error).split())[:300]
            with suppress(LeaseLost):
                self._worker.release(self._trial, worker_failure=f"{self._device}: {reason}")
            raise DeviceLost(
                f"{self._device} failed, and only a new process can use it again; trial {self._trial.number} is "
                f"released: {reason}"
            ) from error
        if isinstance(error, HpoError):  # a model, data or a metric that cannot be used, which the user can fix
            with suppress(LeaseLost):
                self._worker.release(self._trial, worker_failure=str(error))
            raise error
        TrialRecord(failure=f"{type(error).__name__}: {error}").save(self._trial)
        self._finish(TrialState.FAIL)
        raise error

    def _clear(self) -> None:
        """Remove the files that only resuming the trial would need."""
        _clear(self._folder)
        if self._remote:
            self._remote.remove(self._folder.name)


def clear_stage(context: StudyContext, study: optuna.Study, remote: RemoteCheckpoints | None) -> None:
    """Remove the files of a finished stage's trials that ended on another machine, or while they waited."""
    finished = [trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    folders = [context.trial_folder(stage_folder(study), number) for number in finished]
    for folder in folders:
        if folder.is_dir():
            _clear(folder)
    if remote:
        remote.remove_all({folder.name for folder in folders})


def _clear(folder: Path) -> None:
    remove_learning_curve(folder)
    remove_checkpoints(folder)
