"""The final model: the winner trained on all rows that may be trained on, measured on test, saved with its card."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState
from torch import nn

from hpo.config.trial_params import TrialParams
from hpo.config.user_code import copied_reference, copy_file
from hpo.core.direction import loss_sign
from hpo.core.paths import folder_owner, run_folder
from hpo.errors import StudyError
from hpo.reporting.card import model_card
from hpo.search.ranking import agreement
from hpo.storage.records.final_model import (
    CARD,
    METRIC_FILE,
    READING,
    TASK_FILE,
    Baseline,
    ConfirmedTrial,
    Confusion,
    FinalModel,
    FinalScores,
    FirstTrial,
)
from hpo.storage.records.study import HeldOutEvaluation, StudyRecord
from hpo.storage.records.trial import TrialRecord
from hpo.training.evaluate import Evaluation, evaluate
from hpo.training.execution import Execution
from hpo.training.models.candidate import save_model
from hpo.training.models.footprint import measure_footprint
from hpo.training.models.lora import ADAPTER, AdapterWeights
from hpo.training.plan import TrainingPlan
from hpo.workflow.context import Attempt, StudyContext, describe_data
from hpo.workflow.worker.confirm import confirmed_model_folder
from hpo.workflow.worker.objective import OnReport, train_trial
from hpo.workflow.worker.saved_model import Sample
from hpo.workflow.worker.stages import ConfirmJob, best_first_trial, stage_folder

RESAMPLES = 2000


@dataclass(frozen=True)
class TrainedModel:
    """A trained model with its plan. `adapter`: the LoRA weights that were merged into it."""

    model: nn.Module
    adapter: AdapterWeights | None
    plan: TrainingPlan


def train_final_model(
    trial: optuna.Trial,
    attempt: Attempt,
    confirmed: Sequence[ConfirmedTrial],
    search: optuna.Study,
    context: StudyContext,
    execution: Execution,
    on_report: OnReport,
) -> FinalModel:
    """Train, measure and save the final model of `confirmed[0]`, and record it in `trial`; return its record."""
    started, winner = time.monotonic(), confirmed[0]
    params = TrialParams(**winner.params)
    folder = context.trial_folder(stage_folder(trial.study), trial.number)
    if context.config.refit == "none":
        trained = _confirmed_model(winner, params, context, folder)
    else:
        source = search.get_trials(deepcopy=False)[winner.trial]
        complete = source.state == TrialState.COMPLETE  # a pruned one did not choose its epochs
        epochs = TrialRecord.of(source).epochs_trained if complete else None
        plan = refit_plan(params, epochs, context, folder, execution, attempt)
        run = train_trial(trial, plan, on_report, lambda _: None).fine_tuning
        trained = TrainedModel(run.model, run.adapter, run.plan)
    own = run_folder(context.config.name, context.identity)
    final = finish_final_model(trained, confirmed, context, search, own / "final", started)
    shutil.rmtree(own / "confirmed", ignore_errors=True)
    TrialRecord(result=final).save(trial)
    return final


def refit_plan(
    params: TrialParams,
    epochs: float | None,
    context: StudyContext,
    folder: Path,
    execution: Execution,
    attempt: Attempt | None = None,
) -> TrainingPlan:
    """Return the plan of the final training: on train and validation together, without evaluation.

    A configuration chosen on a subset of the training rows is trained on that subset alone. `epochs`: where early
    stopping ended the winner's run, and so where the final training ends.
    """
    plan = context.plan(params, context.config.seed, folder, execution, attempt)
    assert plan.validation is not None
    train = plan.train if params.uses_subset else plan.train.concatenate(plan.validation)
    return replace(plan, train=train, validation=None, folds=(), epochs_to_train=epochs)


def finish_final_model(
    trained: TrainedModel,
    confirmed: Sequence[ConfirmedTrial],
    context: StudyContext,
    search: optuna.Study,
    target: Path,
    started: float,
) -> FinalModel:
    """Measure a trained model, save it in `target` with its card and its record, and return the record.

    `confirmed[0]` is the model's own configuration; `started`, by the monotonic clock, is when its training started.
    """
    footprint = measure_footprint(trained.model, trained.plan.train, context.task, trained.plan.execution.device)
    scores, baseline, confusion = _measure_on_test(trained, context, search)
    refit = "none" if trained.plan.validation is not None else "train+validation"
    final = FinalModel(
        study=search.study_name,
        identity=context.identity,
        task=copied_reference(context.config.task, TASK_FILE),
        metric=context.scorer.name,
        metric_source=copied_reference(context.config.metric, METRIC_FILE),
        data_config=context.config.data.model_dump(mode="json", include=READING),
        winner=confirmed[0],
        confirmed=tuple(confirmed),
        defaults=_best_default(search),
        refit="train" if refit != "none" and trained.plan.params.uses_subset else refit,
        model_dir=target,
        command=f"hpo retrain {search.study_name} --trial {confirmed[0].trial}",
        data=describe_data(context.data),
        max_length=context.max_length(trained.plan.params.model),
        trust_remote_code=context.config.model_ref(trained.plan.params.model).trust_remote_code,
        versions=StudyRecord.of(search).versions,
        footprint=footprint,
        violations=context.config.constraints.violations(footprint),
        ranking=agreement(search),
        test=scores,
        baseline=baseline,
        confusion=confusion,
        seconds=_search_seconds(search) | {"retrain": time.monotonic() - started},
    )
    written = _save(trained, context, final, target)
    if scores is not None:  # not before: where the disk was full, the same command evaluates again, and counts it once
        _count_evaluation(search, target.name, scores.metrics[context.scorer.name])
    return written


def _measure_on_test(
    trained: TrainedModel, context: StudyContext, search: optuna.Study
) -> tuple[FinalScores | None, Baseline | None, Confusion | None]:
    """Evaluate on the test split, and a simple baseline too; all None without a test split."""
    if context.data.test is None:
        return None, None, None
    plan = trained.plan
    features = context.features("test", plan.params.model)
    trained.model.to(plan.execution.device)  # a model read from disk, or trained in 4 bits, is on the host
    found = evaluate(trained.model, features, context.task, context.scorer, plan.execution)
    scores = FinalScores(
        metrics=found.metrics,
        interval=bootstrap_interval(found, context),
        rows=len(found.references),
        evaluations=len(StudyRecord.of(search).test_evaluations) + 1,
    )
    baseline = context.task.baseline(context.data, context.config.metric)
    confusion = context.task.confusion_matrix(found.predictions, found.references, context.data)
    return (
        scores,
        None if baseline is None else Baseline(name=baseline[0], value=baseline[1]),
        None if confusion is None else Confusion(**confusion),
    )


def _count_evaluation(search: optuna.Study, model_dir: str, value: float) -> None:
    """Record an evaluation on test in the study: a test split used often becomes a validation split."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    evaluation = HeldOutEvaluation(model_dir=model_dir, value=value, when=now)
    StudyRecord(test_evaluations=(*StudyRecord.of(search).test_evaluations, evaluation)).save(search)


def bootstrap_interval(found: Evaluation, context: StudyContext) -> tuple[float, float] | None:
    """Return the 95 % percentile bootstrap interval of the metric over the test rows (Efron, 1979); None for a loss."""
    rng = np.random.default_rng(0)
    name, rows = context.scorer.name, len(found.predictions)
    if name == "loss":
        return None
    samples = (rng.integers(0, rows, rows) for _ in range(RESAMPLES))
    values = [context.scorer(found.predictions[rows], found.references[rows])[name] for rows in samples]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def _save(trained: TrainedModel, context: StudyContext, final: FinalModel, target: Path) -> FinalModel:
    """Write model, processor, card and record into a scratch folder, then rename it to `target`; return the record.

    Raises `ModelError` where the saved model predicts otherwise than the trained one was evaluated.
    """
    scratch = target.with_name(f".{target.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    context.task.finalize_model(trained.model, context.data)
    sample = Sample.evaluate(trained.model, trained.plan, context)
    save_model(trained.model, scratch)
    if trained.adapter is not None and context.config.keep_adapter:
        trained.adapter.save(scratch / ADAPTER, trained.model)
    trained.plan.candidate.processor.save_pretrained(scratch)
    (scratch / CARD).write_text(model_card(context.config.redacted(), final), encoding="utf-8")
    copy_file(context.config.task, scratch / TASK_FILE)
    copy_file(context.config.metric, scratch / METRIC_FILE)
    written = final.write(scratch)
    sample.check(scratch)
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)
    return written


def _confirmed_model(winner: ConfirmedTrial, params: TrialParams, context: StudyContext, folder: Path) -> TrainedModel:
    """Load the model that the confirm stage kept: of the winner's seeds the best."""
    sign = loss_sign(context.scorer.direction)
    seed = min(winner.values, key=lambda seed: sign * winner.values[seed])
    kept = confirmed_model_folder(context, ConfirmJob(winner.trial, seed))
    if folder_owner(kept) != context.identity:
        raise StudyError(
            f"refit: none: the confirmed model of trial {winner.trial} is not at {kept}, or is of another study. "
            f"`hpo retrain {context.config.name} --trial {winner.trial}` trains it again."
        )
    trusted = context.config.model_ref(params.model).trust_remote_code
    model = context.task.build_model(str(kept), local_files_only=True, trust_remote_code=trusted)
    return TrainedModel(model, AdapterWeights.load(kept / ADAPTER), context.plan(params, seed, folder))


def _best_default(search: optuna.Study) -> FirstTrial | None:
    best = best_first_trial(search)
    if best is None:
        return None
    return FirstTrial(trial=best.number, value=float(best.value or 0.0), params=TrialRecord.of(best).params)


def _search_seconds(search: optuna.Study) -> dict[str, float]:
    trials = search.get_trials(deepcopy=False)
    starts = [t.datetime_start for t in trials if t.datetime_start]
    ends = [t.datetime_complete for t in trials if t.datetime_complete]
    return {"search": (max(ends) - min(starts)).total_seconds()} if starts and ends else {}
