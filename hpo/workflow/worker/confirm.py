"""Confirming: the best configurations again, on seeds the search has not seen."""

from pathlib import Path

import optuna

from hpo.config.trial_params import TrialParams
from hpo.core.paths import run_folder
from hpo.storage.records import params_of
from hpo.training.models.candidate import save_model
from hpo.training.models.footprint import measure_footprint
from hpo.training.models.lora import ADAPTER
from hpo.workflow.context import StudyContext
from hpo.workflow.stages import Job, stage_folder
from hpo.workflow.worker.objective import OnReport, train_trial


def confirm_job(
    trial: optuna.Trial, job: Job, search: optuna.Study, context: StudyContext, on_report: OnReport
) -> float:
    """Train the configuration of `job.trial` on `job.seed`; returns its validation score.

    Never pruned. With `refit: none` the trained model is kept, for the winner's to become the final model.
    """
    source = next(t for t in search.get_trials(deepcopy=False) if t.number == job.trial)
    trial.set_user_attr("confirms", job.trial)
    folder = context.trial_folder(stage_folder(trial.study), trial.number)
    plan = context.plan(TrialParams(**params_of(source)), job.seed, folder)
    done = train_trial(trial, plan, on_report, lambda _: None)
    if context.config.constraints.are_set:
        # The folds of a run leave no model: its like before training takes as much.
        model = plan.candidate.build(job.seed) if plan.folds else done.fine_tuning.model
        measured = measure_footprint(model, plan.train, context.task, plan.execution.device)
        trial.set_user_attr("footprint", measured.model_dump())
    if context.config.refit == "none":
        kept, run = confirmed_model(context.config.name, job), done.fine_tuning
        save_model(run.model, kept)
        if run.adapter is not None:
            run.adapter.save(kept / ADAPTER, run.model)
    return done.value


def confirmed_model(study: str, job: Job) -> Path:
    """Where the confirm stage keeps the model of a job."""
    return run_folder(study) / "confirmed" / f"trial-{job.trial}-seed-{job.seed}"
