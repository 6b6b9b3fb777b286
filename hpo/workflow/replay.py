"""Replaying a trial from what it recorded, and training a chosen one to a model of its own."""

import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from hpo.config.load import load_config
from hpo.config.trial_params import TrialParams
from hpo.core.paths import run_folder
from hpo.errors import StudyError
from hpo.storage.records import EXECUTION, params_of
from hpo.training.cross_validation import start_training
from hpo.training.execution import Execution, available_devices, choose_execution, cores
from hpo.training.fine_tune import FineTuning
from hpo.workflow.context import StudyContext, versions
from hpo.workflow.worker.final_model import measure_on_test, refit_plan, save_final


@dataclass(frozen=True)
class Replay:
    """A trial's recorded values and its replay's, rung by rung; `not_applied` says what could not be the same."""

    steps: list[int]
    recorded: list[float]
    replayed: list[float]
    not_applied: list[str]


def replay(study: optuna.Study, number: int) -> Replay:
    """Carry out trial `number` again with its own parameters, seed and execution plan. Raises `StudyError`."""
    trial = find_trial(study, number)
    if EXECUTION not in trial.system_attrs:
        raise StudyError(f"Trial {number} failed before it recorded its plan, so it cannot be replayed.")
    execution, not_applied = _recorded_execution(trial)
    for package, now in versions().items():
        before = study.user_attrs["versions"].get(package)
        if before != now:
            not_applied.append(f"{package}: {before} then, {now} now")
    config = load_config(study.user_attrs["config"])
    context = StudyContext(config, execution)
    context.check_fingerprint(study.user_attrs["data"]["fingerprint"])
    params = TrialParams(**params_of(trial))
    with tempfile.TemporaryDirectory() as folder:
        run = start_training(context.plan(params, trial.user_attrs["seed"], Path(folder)))
        values: dict[int, float] = {}
        for report in run.reports():
            values[report.step] = report.value
            if report.step >= max(trial.intermediate_values, default=0):
                break
    steps = sorted(trial.intermediate_values)
    return Replay(steps, [trial.intermediate_values[s] for s in steps], [values[s] for s in steps], not_applied)


def _recorded_execution(trial: FrozenTrial) -> tuple[Execution, list[str]]:
    known = trial.system_attrs[EXECUTION]
    recorded = {f.name: known[f.name] for f in fields(Execution) if f.name in known}
    not_applied = []
    if recorded["device"] not in available_devices():
        not_applied.append(f"device: {recorded['device']} is not on this machine; cpu is used")
        recorded["device"] = "cpu"
    return Execution(**recorded), not_applied


def retrain(study: optuna.Study, number: int | None = None) -> dict[str, Any]:
    """Train a trial's configuration (the winner's unless `number` is given) to a final model; returns its record.

    The model goes to runs/NAME/final, or runs/NAME/trial-N for another trial. The evaluation on test is counted.
    """
    result = study.user_attrs.get("result")
    if number is None:
        if result is None:
            raise StudyError(f"Study '{study.study_name}' has no winner yet; name a trial with --trial N.")
        number = int(result["winner"]["trial"])
    trial = find_trial(study, number)
    if not trial.intermediate_values:
        raise StudyError(f"Trial {number} reported nothing; see `hpo status` for the reason.")
    config = load_config(study.user_attrs["config"])
    execution = choose_execution(available_devices()[0], cores())
    context = StudyContext(config, execution)
    context.check_fingerprint(study.user_attrs["data"]["fingerprint"])
    params = TrialParams(**params_of(trial))
    complete = trial.state == optuna.trial.TrialState.COMPLETE
    epochs = trial.user_attrs.get("epochs_trained") if complete else None
    winner = result is not None and number == result["winner"]["trial"]
    target = run_folder(study.study_name) / ("final" if winner else f"trial-{number}")
    with tempfile.TemporaryDirectory() as folder:
        run = FineTuning(refit_plan(params, epochs, context, Path(folder), execution))
        for _ in run.reports():
            pass
    own = {"trial": number, "params": params_of(trial), "values": {}, "mean": trial.value, "std": 0.0}
    own["search_value"] = trial.value
    record = {
        **(result if winner and result else {"winner": own, "confirmed": [], "defaults": None}),
        "refit": "train" if params.uses_subset else "train+validation",
        "model_dir": str(target),
        "command": f"hpo retrain {study.study_name} --trial {number}",
        **measure_on_test(run.model, run.plan, context, study, str(target)),
    }
    save_final(run.model, run.adapter, run.plan, context, study, record, target)
    if winner:
        study.set_user_attr("result", record)
    return record


def find_trial(study: optuna.Study, number: int) -> FrozenTrial:
    """Trial `number` of a study. Raises `StudyError`."""
    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise StudyError(f"'{study.study_name}' has no trial {number}; its trials are 0 to {len(trials) - 1}.")
    return trials[number]
