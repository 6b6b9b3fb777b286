"""A run that this worker holds the lease of: carried out, and its trial told right whatever its end is."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import optuna
from optuna.trial import TrialState

from hpo.errors import DeviceLost, HpoError, StorageError
from hpo.storage.lease import LeaseLost, Worker
from hpo.storage.optuna_internals import trial_id
from hpo.storage.status import ATTEMPT
from hpo.storage.transactions import FAILURE
from hpo.training.checkpoints.checkpoint import fold_folder, latest_checkpoint, remove_checkpoints
from hpo.training.fine_tune import Stopped
from hpo.workflow.callbacks import CallbackList, State
from hpo.workflow.context import StudyContext
from hpo.workflow.stages import stage_folder
from hpo.workflow.worker.failures import is_device_lost, is_disk_full, reason_to_fail
from hpo.workflow.worker.learning_curve import remove_learning_curve

log = logging.getLogger("hpo.worker")

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class TrialRun:
    """One trial that `worker` has in hand, worked on at `context`."""

    def __init__(
        self,
        worker: Worker,
        context: StudyContext,
        study: optuna.Study,
        trial: optuna.Trial,
        callbacks: CallbackList,
    ) -> None:
        self._worker = worker
        self._study = study
        self._trial = trial
        self._context = context
        self._callbacks = callbacks
        self._device = context.execution.device
        self._folder = context.trial_folder(stage_folder(study), trial.number)
        self._folds = len(context.data.folds)
        self._remote = context.remote_checkpoints
        context.attempt = worker.attempt
        context.on_checkpoint = self._keep

    def run(self, work: Callable[[optuna.Trial], float]) -> None:
        """Do `work` and tell the trial's result; or give it back when told to stop, or drop what another has taken.

        Raises what this process cannot go on after, the trial given back or told first: `StorageError` (the database's,
        or a full disk), `DeviceLost`, and any bug.
        """
        trial = self._trial
        try:
            trial.set_user_attr("worker", self._worker.name)
            trial.set_user_attr(ATTEMPT, self._worker.attempt)
            self._fetch()
            state, value = self._outcome(work)
            self._finish(state, value)
        except Stopped:
            self._callbacks.release()
            with suppress(LeaseLost):  # another worker's by now: it has its own
                self._worker.release(trial, self._worker.checkpoint)
        except LeaseLost:
            log.warning("trial %s was taken over by another worker; its result here is dropped", trial.number)
            if self._worker.storage.get_trial(trial_id(trial)).state.is_finished():
                self._clear()  # a worker that was frozen may have saved after the other had cleared it
        except StorageError:
            raise  # the database's: the trial is given back as the worker closes
        except Exception as error:
            self._leave_for(error)
        else:
            self._clear()

    def _finish(self, state: TrialState, value: float | None = None) -> None:
        self._worker.finish(self._study, self._trial, state, value)
        self._callbacks.on_trial_end(_STATES[state], value)

    def _keep(self, path: Path) -> None:
        """Record a checkpoint, where others reach it if there is such a place."""
        copy = self._remote.put(path, self._name(path.parent)) if self._remote else None
        self._worker.record_checkpoint(self._trial, copy or str(path))

    def _fetch(self) -> None:
        """Have a trial that was begun elsewhere find its checkpoint here; where that cannot be, say so."""
        recorded = self._worker.checkpoint
        if self._worker.attempt == 1 or recorded is None:
            return
        folders = [self._folder, *(fold_folder(self._folder, number + 1) for number in range(self._folds))]
        for folder in folders:
            if self._remote:
                self._remote.fetch(self._name(folder), folder)
        if all(latest_checkpoint(folder) is None for folder in folders):
            told = f"starts again in attempt {self._worker.attempt}: its checkpoint {recorded} cannot be read here"
            log.warning("trial %s %s", self._trial.number, told)
            self._trial.set_user_attr("restarted", told)

    def _name(self, folder: Path) -> str:
        """A folder of checkpoints, the trial's or one of its folds', as copies of it are called."""
        return folder.relative_to(self._folder.parent).as_posix()

    def _outcome(self, work: Callable[[optuna.Trial], float]) -> tuple[TrialState, float | None]:
        """How a run ended: complete, pruned, or failed in a way that costs that trial only."""
        try:
            return TrialState.COMPLETE, work(self._trial)
        except optuna.TrialPruned:
            return TrialState.PRUNED, None
        except Exception as error:
            reason = reason_to_fail(error)
            if reason is None:
                raise
        # Only here, past the exception, is the memory free again that the run held.
        self._trial.set_user_attr(FAILURE, reason)
        return TrialState.FAIL, None

    def _leave_for(self, error: Exception) -> NoReturn:
        """Do right by the trial, then raise: after such an error this process cannot go on."""
        if is_disk_full(error):
            with suppress(LeaseLost):
                self._worker.release(self._trial)
            raise StorageError(
                f"The disk is full (writing below {self._folder.parent}). The study is whole: free some space, and the "
                "same command goes on."
            ) from error
        if is_device_lost(error):
            reason = " ".join(str(error).split())[:300]
            with suppress(LeaseLost):  # another worker's by now
                self._worker.release(self._trial, worker_failure=f"{self._device}: {reason}")
            raise DeviceLost(
                f"{self._device} failed, and only a new process can use it again; trial {self._trial.number} is given "
                f"back: {reason}"
            ) from error
        if isinstance(error, HpoError):  # a model, data or a metric that cannot be used, and can be put right
            with suppress(LeaseLost):
                self._worker.release(self._trial, worker_failure=str(error))
            raise error
        # A bug: said in the trial, then loud.
        self._trial.set_user_attr(FAILURE, f"{type(error).__name__}: {error}")
        self._finish(TrialState.FAIL)
        raise error

    def _clear(self) -> None:
        """Remove what a finished trial needed to be gone on with."""
        _clear(self._folder)
        if self._remote:
            self._remote.remove(self._folder.name)


def clear_stage(context: StudyContext, study: optuna.Study) -> None:
    """Remove what trials of a stage that is over have left: those that ended on another machine, or as they waited."""
    finished = [trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    folders = [context.trial_folder(stage_folder(study), number) for number in finished]
    for folder in folders:
        if folder.is_dir():
            _clear(folder)
    if context.remote_checkpoints:
        context.remote_checkpoints.remove_all({folder.name for folder in folders})


def _clear(folder: Path) -> None:
    remove_learning_curve(folder)
    remove_checkpoints(folder)
