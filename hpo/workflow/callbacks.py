"""Callbacks: what a user's code may do when a study, a trial or a final model starts, reports or ends.

This module imports no library, so that a file with a callback stays quick to read.
"""

import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import optuna

    from hpo.config.trial_params import Report, TrialParams
    from hpo.storage.records.final_model import FinalModel
    from hpo.workflow.result import Result

log = logging.getLogger("hpo.worker")

State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class TrialInfo:
    """One run of training. `study` and `number` identify it in the database, over all its attempts.

    `stage` is `search`, `confirm` (a configuration of the search again, on another seed) or `retrain` (the final
    model). `study` is the study's name, of other stages with a suffix. `attempt` is 1 when the trial starts, and
    higher when it is resumed from its last checkpoint after a stop or the loss of its worker; the rungs after that
    checkpoint are then reported again.
    """

    study: str
    stage: str
    number: int
    attempt: int
    params: "TrialParams"
    device: str


class Callback:
    """Derive from it and override the hooks you need; each does nothing by default.

    Hooks of the study run in the process that called `hpo.run`, all others in the worker that trains. Workers have
    copies of their own: of an object passed to `hpo.run` as it was then, of a class named in a study file a new
    instance, created without arguments. An exception in a hook is reported as a warning, once for each hook, and costs
    no trial; `KeyboardInterrupt` and `SystemExit` end the process as elsewhere, and its trial is resumed later. In a
    file that a study names, `SystemExit` is an error that names the line.
    """

    def on_study_begin(self, study: "optuna.Study") -> None:
        """Run when the study was created, or is resumed, before any worker trains."""

    def on_study_end(self, study: "optuna.Study", result: "Result | None") -> None:
        """Run when all workers have exited. `result` is None where the study was stopped or failed before its end."""

    def on_trial_begin(self, trial: TrialInfo) -> None:
        """Run before the first training step of a trial, again for each attempt."""

    def on_report(self, trial: TrialInfo, report: "Report") -> None:
        """Run after each evaluation. The final training has no validation split: its `report.value` is NaN."""

    def on_trial_end(self, trial: TrialInfo, state: State, value: float | None) -> None:
        """Run when a trial is complete, pruned or failed; not when it is interrupted to be resumed.

        `value` is the trial's objective value; None where it is not complete.
        """

    def on_final_model(self, folder: Path, record: "FinalModel") -> None:
        """Run when the final model is saved in `folder`, with its record: configuration, scores, data."""


class CallbackList:
    """The callbacks of a process: calls a hook of each, and turns exceptions into warnings."""

    def __init__(self, callbacks: Sequence[Callback], warn: Callable[[str], None]) -> None:
        self._callbacks = callbacks
        self._warn = warn
        self._warned: set[tuple[int, str]] = set()
        self._trial: TrialInfo | None = None  # the one that began here last, until it ends

    def on_study_begin(self, study: "optuna.Study") -> None:
        self._call("on_study_begin", study)

    def on_study_end(self, study: "optuna.Study", result: "Result | None") -> None:
        self._call("on_study_end", study, result)

    def on_report(self, trial: TrialInfo, report: "Report | None") -> None:
        """Call `on_report`; without a report, `on_trial_begin`."""
        self._trial = trial
        if report is None:
            self._call("on_trial_begin", trial)
        else:
            self._call("on_report", trial, report)

    def on_trial_end(self, state: State, value: float | None) -> None:
        """Call `on_trial_end` of the trial that began last; of one that failed before it began there is no call."""
        trial, self._trial = self._trial, None
        if trial is not None:
            self._call("on_trial_end", trial, state, value)

    def on_final_model(self, folder: Path, record: "FinalModel") -> None:
        self._call("on_final_model", folder, record)

    def release(self) -> None:
        """Forget the running trial: it was interrupted, and is resumed as another attempt."""
        self._trial = None

    def _call(self, hook: str, *arguments: Any) -> None:
        for number, callback in enumerate(self._callbacks):
            try:
                getattr(callback, hook)(*arguments)
            except Exception as error:  # whatever a user's code raises
                self._report(number, callback, hook, error)

    def _report(self, number: int, callback: Callback, hook: str, error: Exception) -> None:
        if (number, hook) in self._warned:
            return
        self._warned.add((number, hook))
        name = f"{type(callback).__name__}.{hook}"
        log.warning("callback %s failed; further failures of it are not logged", name, exc_info=error)
        frames = traceback.extract_tb(error.__traceback__)
        where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        self._warn(f"callback {name} failed: {type(error).__name__}: {error}{where}")
