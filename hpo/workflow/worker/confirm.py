"""The confirm stage: the best configurations trained again, on seeds that the search has not used."""

from pathlib import Path

import optuna

from hpo.config.trial_params import TrialParams
from hpo.core.paths import OWNER, run_folder
from hpo.storage.records.trial import TrialRecord
from hpo.training.models.candidate import save_model
from hpo.training.models.footprint import measure_footprint
from hpo.training.models.lora import ADAPTER
from hpo.workflow.context import Attempt, StudyContext
from hpo.workflow.worker.objective import OnReport, train_trial
from hpo.workflow.worker.stages import ConfirmJob, stage_folder


def confirm_objective(
    trial: optuna.Trial,
    attempt: Attempt,
    job: ConfirmJob,
    search: optuna.Study,
    context: StudyContext,
    on_report: OnReport,
) -> float:
    """Train the configuration of `job.trial` on `job.seed`, without pruning; return its validation score.

    With `refit: none` the trained model is kept, because the winner's becomes the final model.
    """
    source = next(t for t in search.get_trials(deepcopy=False) if t.number == job.trial)
    TrialRecord(confirms=job.trial).save(trial)
    folder = context.trial_folder(stage_folder(trial.study), trial.number)
    plan = context.plan(TrialParams(**TrialRecord.of(source).params), job.seed, folder, attempt=attempt)
    trained = train_trial(trial, plan, on_report, lambda _: None)
    if context.config.constraints.are_set:
        # A run with folds leaves no model: an untrained one has the same footprint.
        model = plan.candidate.build(job.seed) if plan.folds else trained.fine_tuning.model
        footprint = measure_footprint(model, plan.train, context.task, plan.execution.device)
        TrialRecord(footprint=footprint).save(trial)
    if context.config.refit == "none":
        kept, run = confirmed_model_folder(context, job), trained.fine_tuning
        save_model(run.model, kept)
        if run.adapter is not None:
            run.adapter.save(kept / ADAPTER, run.model)
        (kept / OWNER).write_text(context.identity, encoding="utf-8")
    return trained.value


def confirmed_model_folder(context: StudyContext, job: ConfirmJob) -> Path:
    """Return the folder in which the confirm stage keeps the model of a job."""
    return run_folder(context.config.name, context.identity) / "confirmed" / f"trial-{job.trial}-seed-{job.seed}"
