"""`hpo retrain`: trains the configuration of a chosen trial to a final model."""

import tempfile
import time
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpo.config.trial_params import TrialParams
from hpo.core.paths import claim_run_folder
from hpo.errors import StudyError
from hpo.storage.records.digests import check_digests
from hpo.storage.records.final_model import ConfirmedTrial, FinalModel
from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import TrialRecord
from hpo.storage.storage import open_storage
from hpo.training.execution import available_devices, choose_execution, cores
from hpo.training.fine_tune import FineTuning
from hpo.workflow.context import StudyContext
from hpo.workflow.studies import find_trial, open_study
from hpo.workflow.worker.final_model import TrainedModel, finish_final_model, refit_plan


def retrain(name: str | None = None, trial: int | None = None, storage: str | None = None) -> FinalModel:
    """Train the configuration of a trial to a final model; return its record, `model_dir` among it.

    `name` is the study's, None: the latest. `trial` is the trial's number, None: the winner. Trains on train and
    validation; the model is evaluated on test, which is counted. Raises `StudyError` where there is no such trial, or
    it reported nothing.
    """
    return retrain_trial(open_study(open_storage(storage), name), trial)


def retrain_trial(study: optuna.Study, number: int | None = None) -> FinalModel:
    """Train the configuration of trial `number`, by default the winner's, to a final model; return its record.

    The model is written to runs/NAME/final, or to runs/NAME/trial-N for another trial than the winner. The evaluation
    on test is counted. Raises `StudyError` where there is no such trial, or it reported nothing.
    """
    known, started = StudyRecord.of(study), time.monotonic()
    winner = None if known.result is None else known.result.winner.trial
    if number is None:
        if winner is None:
            raise StudyError(f"Study '{study.study_name}' has no winner yet; name a trial with --trial N.")
        number = winner
    trial = find_trial(study, number)
    if not trial.intermediate_values:
        raise StudyError(f"Trial {number} reported nothing; see `hpo status` for the reason.")
    context = StudyContext.create(
        known.study_config, choose_execution(available_devices()[0], cores()), identity=known.identity
    )
    context.check_fingerprint(known.data.fingerprint)
    check_digests(known)
    trained = _train(trial, context)
    is_winner = known.result is not None and number == winner
    confirmed = known.result.confirmed if known.result is not None and is_winner else (_unconfirmed(trial),)
    target = claim_run_folder(study.study_name, known.identity) / ("final" if is_winner else f"trial-{number}")
    final = finish_final_model(trained, confirmed, context, study, target, started)
    if is_winner:
        StudyRecord(result=final).save(study)
    return final


def _train(trial: FrozenTrial, context: StudyContext) -> TrainedModel:
    record = TrialRecord.of(trial)
    epochs = record.epochs_trained if trial.state == TrialState.COMPLETE else None
    with tempfile.TemporaryDirectory() as folder:
        plan = refit_plan(TrialParams(**record.params), epochs, context, Path(folder), context.execution)
        run = FineTuning(plan)
        for _ in run.reports():
            pass
    return TrainedModel(run.model, run.adapter, run.plan)


def _unconfirmed(trial: FrozenTrial) -> ConfirmedTrial:
    value = trial.value if trial.value is not None else trial.intermediate_values[max(trial.intermediate_values)]
    return ConfirmedTrial(trial=trial.number, params=TrialRecord.of(trial).params, search_value=value)
