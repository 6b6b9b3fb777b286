"""From an Optuna trial to a fine-tuning run and back: where the search and the training meet."""

from collections.abc import Callable
from typing import Any

import optuna

from hpo.config.trial_params import Report, TrialParams
from hpo.errors import Diverged
from hpo.search.suggest import suggest
from hpo.storage.optuna_internals import optuna_storage, trial_id
from hpo.storage.records import CURVE, EXECUTION, PARAMS, record
from hpo.storage.status import SPREAD
from hpo.storage.storage import storage_of
from hpo.storage.transactions import FAILURE, RUNGS
from hpo.training.cpu.attention import attention_kernel
from hpo.training.cross_validation import CrossValidation, start_training
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning
from hpo.training.plan import TrainingPlan
from hpo.workflow.context import StudyContext, is_usable
from hpo.workflow.stages import stage_folder
from hpo.workflow.worker.learning_curve import LearningCurve, Point

OnReport = Callable[[TrialParams, Report | None], None]


class Objective:
    """Carries out one trial of the search: suggests its parameters, trains, reports at rungs, prunes.

    A trial's value is its last report, not its best. `on_report` hears of each rung (the worker's progress); once
    `out_of_time()` no trial goes past its next rung.
    """

    def __init__(self, context: StudyContext, out_of_time: Callable[[], bool], on_report: OnReport) -> None:
        self._context = context
        self._out_of_time = out_of_time
        self._on_report = on_report

    def __call__(self, trial: optuna.Trial) -> float:
        context = self._context
        params = suggest(trial, context.config.search_space, context.config.labels)
        plan = context.plan(params, context.config.seed, context.trial_folder(stage_folder(trial.study), trial.number))
        return train_trial(trial, plan, self._on_report, self._check).value

    def _check(self, trial: optuna.Trial) -> None:
        storage = storage_of(trial.study)
        if storage.unless_unavailable(trial.should_prune):
            raise optuna.TrialPruned
        if storage.unless_unavailable(self._out_of_time):
            trial.set_user_attr(FAILURE, "stopped at a rung: the study's hours are spent")
            raise optuna.TrialPruned


class TrainedRun:
    """A run that reached its end: the value of its last rung, and the trained model where there is one."""

    def __init__(self, run: FineTuning | CrossValidation, value: float) -> None:
        self._run = run
        self.value = value

    @property
    def fine_tuning(self) -> FineTuning:
        """The run with its model: that of a plan without folds."""
        assert isinstance(self._run, FineTuning)
        return self._run


def train_trial(
    trial: optuna.Trial, plan: TrainingPlan, on_report: OnReport, check: Callable[[optuna.Trial], None]
) -> TrainedRun:
    """Train `plan` for `trial`: record what it is, report each rung, call `check(trial)` after each but the last.

    Resumes from the trial's checkpoint where there is one. Raises what `FineTuning.reports` and `check` raise. With
    folds, what is reported is their mean.
    """
    known = optuna_storage(trial.study).get_trial(trial_id(trial))
    _record_plan(trial, plan)
    run = start_training(plan)
    on_report(plan.params, None)
    curve = LearningCurve(plan.folder, plan.attempt, run.progress.rung)
    for point in curve.points:
        if point["step"] not in known.intermediate_values and "value" in point:
            trial.report(point["value"], int(point["step"]))  # it waited for the database when the process was killed
    reached = Report(
        step=run.progress.rung, epoch=0, value=float("nan"), metrics={}, train_loss=0, seconds={}, peak_memory_mb=0
    )
    last = len(plan.rung_steps())
    try:
        for report in run.reports():
            reached = report
            if plan.validation is not None and not is_usable(report.value):
                raise Diverged(f"the metric became {report.value} at rung {report.step}")
            if report.step not in known.intermediate_values and is_usable(report.value):
                trial.report(report.value, report.step)
            curve.add(_point(report))
            on_report(plan.params, report)
            if report.step < last and report.step not in known.intermediate_values:
                check(trial)
    finally:
        if curve.points:
            _record_outcome(trial, reached, curve.points, run)
    return TrainedRun(run, reached.value)


def _record_plan(trial: optuna.Trial, plan: TrainingPlan) -> None:
    """Write what a replay needs before anything can go wrong."""
    layers = plan.candidate.stack.count
    record(trial, PARAMS, resolved_params(plan))
    trial.set_user_attr(RUNGS, len(plan.rung_steps()))
    trial.set_user_attr("frozen_layers", f"{plan.frozen_layers} of {layers}")
    trial.set_user_attr("seed", plan.seed)
    record(trial, EXECUTION, recorded_execution(plan, plan.execution))


def recorded_execution(plan: TrainingPlan, execution: Execution) -> dict[str, Any]:
    """How a run is carried out, for its replay: what `Execution` holds, the attention kernel, the rungs."""
    attention = attention_kernel(plan.candidate.model, execution.device)
    return {
        **vars(execution),
        "attention": attention,
        "rungs_per_epoch": plan.rungs_per_epoch,
        "inputs": len(plan.train),
    }


def resolved_params(plan: TrainingPlan) -> dict[str, Any]:
    """The trial's resolved parameters: those it uses; a count of frozen layers, not a share."""
    return {**plan.params.active(), "frozen_layers": plan.frozen_layers, "frozen_share": None}


def _point(report: Report) -> Point:
    point = {"step": report.step, "epoch": report.epoch, "train_loss": report.train_loss}
    if is_usable(report.value):
        point |= {"value": report.value, "loss": report.metrics["loss"]}
    return point | {"seconds": sum(report.seconds.values())}


def _record_outcome(trial: optuna.Trial, report: Report, curve: list[Point], run: FineTuning | CrossValidation) -> None:
    record(trial, CURVE, curve)
    if report.metrics:
        trial.set_user_attr("metrics", report.metrics)
        trial.set_user_attr("gap", report.metrics["loss"] - report.train_loss)
    if report.spread:
        trial.set_user_attr(SPREAD, report.spread)
    trial.set_user_attr("train_loss", report.train_loss)
    trial.set_user_attr("seconds", run.seconds)
    trial.set_user_attr("epochs_trained", report.epoch)
    trial.set_user_attr("peak_memory_mb", round(report.peak_memory_mb))
    if run.execution != run.plan.execution:
        record(trial, EXECUTION, recorded_execution(run.plan, run.execution))
