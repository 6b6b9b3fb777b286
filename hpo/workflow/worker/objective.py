"""The objective of the search, and the training of one trial's plan: where Optuna and fine-tuning meet."""

from collections.abc import Callable
from typing import Any

import optuna

from hpo.config.search_space import Float, Int
from hpo.config.trial_params import Report, TrialParams
from hpo.errors import Diverged, TrialError
from hpo.search.suggest import suggest
from hpo.storage.optuna_internals import optuna_storage, trial_id
from hpo.storage.records.trial import CurvePoint, TrialRecord
from hpo.storage.storage import storage_of
from hpo.training.cpu.attention import attention_kernel
from hpo.training.cross_validation import CrossValidation, start_training
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning
from hpo.training.plan import TrainingPlan
from hpo.workflow.context import Attempt, StudyContext, is_usable
from hpo.workflow.worker.learning_curve import LearningCurve
from hpo.workflow.worker.stages import stage_folder

OnReport = Callable[[optuna.Trial, TrialParams, Report | None], None]  # None: the trial starts


class Objective:
    """The search's objective: suggests parameters, trains, reports at rungs, and prunes.

    The value of a trial is that of its last rung, or of its best where it has a patience. `on_report` is called at each
    rung; once `out_of_time()` is true, no trial continues past its next rung.
    """

    def __init__(self, context: StudyContext, out_of_time: Callable[[], bool], on_report: OnReport) -> None:
        self._context = context
        self._out_of_time = out_of_time
        self._on_report = on_report

    def __call__(self, trial: optuna.Trial, attempt: Attempt) -> float:
        """Return the trial's validation score. Raises `optuna.TrialPruned`, `Stopped` or a `TrialError`."""
        context = self._context
        params = _suggest(trial, context)
        folder = context.trial_folder(stage_folder(trial.study), trial.number)
        plan = context.plan(params, context.config.seed, folder, attempt=attempt)
        return train_trial(trial, plan, self._on_report, self._check).value

    def _check(self, trial: optuna.Trial) -> None:
        storage = storage_of(trial.study)
        if storage.unless_unavailable(trial.should_prune):
            raise optuna.TrialPruned
        if storage.unless_unavailable(self._out_of_time):
            TrialRecord(failure="stopped at a rung: the study's hours are spent").save(trial)
            raise optuna.TrialPruned


def _suggest(trial: optuna.Trial, context: StudyContext) -> TrialParams:
    """Return the trial's parameters. Raises `TrialError` where the trial was queued with ones outside the space.

    They are checked first: Optuna would store a value outside its range, and could not read the trial again.
    """
    space = context.config.search_space
    stored = optuna_storage(trial.study).get_trial(trial_id(trial)).system_attrs
    for name, value in stored.get("fixed_params", {}).items():
        parameter = space.parameters.get(name)
        if isinstance(parameter, Float | Int):
            low, high = parameter.low, parameter.effective_high
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise TrialError(f"it was queued with {name} = {value!r}, outside the search space ({low} to {high})")
    try:
        return suggest(trial, space, context.config.labels)
    except ValueError as error:
        raise TrialError(f"it was queued with parameters that the search space does not have: {error}") from None


class TrainedRun:
    """A run that reached its end: the value of its outcome, and the trained model unless it has folds."""

    def __init__(self, run: FineTuning | CrossValidation) -> None:
        self._run = run
        self.value = run.outcome.value

    @property
    def fine_tuning(self) -> FineTuning:
        """The run with its model, for a plan without folds."""
        assert isinstance(self._run, FineTuning)
        return self._run


def train_trial(
    trial: optuna.Trial, plan: TrainingPlan, on_report: OnReport, check: Callable[[optuna.Trial], None]
) -> TrainedRun:
    """Train `plan` for `trial`: record the plan, report each rung, call `check(trial)` after each but the last.

    Resumes from the trial's checkpoint where there is one. With folds, the reports are the means over them. Raises
    what `FineTuning.reports` and `check` raise.
    """
    reported = optuna_storage(trial.study).get_trial(trial_id(trial)).intermediate_values
    _record_plan(trial, plan)
    run = start_training(plan)
    on_report(trial, plan.params, None)
    curve = LearningCurve(plan.folder, plan.study, plan.attempt, run.progress.rung)
    for point in curve.points:  # those that waited for the database when the process was killed
        if point.step not in reported and point.value is not None:
            trial.report(point.value, point.step)
    reached = Report(
        step=run.progress.rung, epoch=0, value=float("nan"), metrics={}, train_loss=0, seconds={}, peak_memory_mb=0
    )
    last = len(plan.rung_steps())
    try:
        for report in run.reports():
            reached = report
            if plan.validation is not None and not is_usable(report.value):
                raise Diverged(f"the metric became {report.value} at rung {report.step}")
            if report.step not in reported and is_usable(report.value):
                trial.report(report.value, report.step)
            curve.add(_point(report))
            on_report(trial, plan.params, report)
            if report.step < last and report.step not in reported:
                check(trial)
        reached = run.outcome
    finally:
        if curve.points:
            _record_outcome(trial, reached, curve.points, run)
    return TrainedRun(run)


def _record_plan(trial: optuna.Trial, plan: TrainingPlan) -> None:
    """Record what a replay needs, before anything can fail."""
    TrialRecord(
        params=resolved_params(plan),
        rungs=len(plan.rung_steps()),
        frozen_layers=f"{plan.frozen_layers} of {plan.candidate.stack.count}",
        seed=plan.seed,
        execution=recorded_execution(plan, plan.execution),
    ).save(trial)


def recorded_execution(plan: TrainingPlan, execution: Execution) -> dict[str, Any]:
    """Return what a replay needs of the execution: the fields of `Execution`, the attention kernel, the rungs."""
    return {
        **vars(execution),
        "attention": attention_kernel(plan.candidate.model, execution.device),
        "rungs_per_epoch": plan.rungs_per_epoch,
        "inputs": len(plan.train),
    }


def resolved_params(plan: TrainingPlan) -> dict[str, Any]:
    """Return the parameters that the trial uses, with frozen layers as a count rather than a share."""
    return {**plan.params.active(), "frozen_layers": plan.frozen_layers, "frozen_share": None}


def _point(report: Report) -> CurvePoint:
    usable = is_usable(report.value)
    return CurvePoint(
        step=report.step,
        epoch=report.epoch,
        train_loss=report.train_loss,
        seconds=sum(report.seconds.values()),
        value=report.value if usable else None,
        loss=report.metrics["loss"] if usable else None,
    )


def _record_outcome(
    trial: optuna.Trial, report: Report, curve: list[CurvePoint], run: FineTuning | CrossValidation
) -> None:
    values: dict[str, Any] = {}
    if report.metrics:
        values |= {"metrics": report.metrics, "gap": report.metrics["loss"] - report.train_loss}
    if report.spread:
        values["spread"] = report.spread
    if run.execution != run.plan.execution:
        values["execution"] = recorded_execution(run.plan, run.execution)
    TrialRecord(
        curve=tuple(curve),
        train_loss=report.train_loss,
        seconds=run.seconds,
        epochs_trained=report.epoch,
        peak_memory_mb=round(report.peak_memory_mb),
        **values,
    ).save(trial)
