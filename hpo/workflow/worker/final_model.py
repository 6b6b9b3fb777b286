"""The final model: the winner trained on all that may be trained on, measured once on test, saved with its card."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from torch import nn

from hpo.config.trial_params import TrialParams
from hpo.core.direction import loss_sign
from hpo.core.paths import run_folder
from hpo.reporting.card import model_card
from hpo.search.ranking import agreement
from hpo.storage.records import params_of
from hpo.training.evaluate import Evaluation, evaluate
from hpo.training.execution import Execution
from hpo.training.models.candidate import save_model
from hpo.training.models.footprint import measure_footprint
from hpo.training.models.lora import ADAPTER, AdapterWeights
from hpo.training.plan import TrainingPlan
from hpo.workflow.context import StudyContext, describe_data
from hpo.workflow.stages import Confirmed, Job, best_default, stage_folder
from hpo.workflow.worker.confirm import confirmed_model
from hpo.workflow.worker.objective import OnReport, resolved_params, train_trial

RESAMPLES = 2000


def final_run(
    trial: optuna.Trial,
    ranking: Sequence[Confirmed],
    search: optuna.Study,
    context: StudyContext,
    execution: Execution,
    on_report: OnReport,
) -> float:
    """Make the final model of `ranking[0]`, save it, and record the result in `trial`. Returns the test score.

    Without a test split the value is the winner's mean on validation.
    """
    started = time.monotonic()
    winner = ranking[0]
    params = TrialParams(**winner.params)
    folder = context.trial_folder(stage_folder(trial.study), trial.number)
    if context.config.refit == "none":
        model, adapter, plan = _validated_model(winner, params, context, folder)
    else:
        epochs = _epochs_trained(search, winner.trial)
        plan = refit_plan(params, epochs, context, folder, execution)
        run = train_trial(trial, plan, on_report, lambda _: None).fine_tuning
        model, adapter = run.model, run.adapter
    footprint = measure_footprint(model, plan.train, context.task, plan.execution.device)
    target = run_folder(context.config.name) / "final"
    result = {
        "winner": winner.to_dict(),
        "confirmed": [c.to_dict() for c in ranking],
        "defaults": _defaults(search),
        "refit": "train" if params.uses_subset and context.config.refit != "none" else context.config.refit,
        "model_dir": str(target),
        "command": f"hpo retrain {search.study_name} --trial {winner.trial}",
        "params": resolved_params(plan),
        "footprint": footprint.model_dump(),
        "broken": context.config.constraints.violations(footprint),
        "ranking": agreement(search),
        **measure_on_test(model, plan, context, search, str(target)),
        "seconds": _seconds(search) | {"retrain": time.monotonic() - started},
    }
    save_final(model, adapter, plan, context, search, result, target)
    shutil.rmtree(run_folder(context.config.name) / "confirmed", ignore_errors=True)
    trial.set_user_attr("result", result)
    test = result["test"]
    return float(test["metrics"][context.scorer.name]) if test else winner.mean


def refit_plan(
    params: TrialParams, epochs: float | None, context: StudyContext, folder: Path, execution: Execution
) -> TrainingPlan:
    """The plan of the final training: train and validation together, nothing held back to evaluate on.

    A configuration for a part of the training rows is trained on that part alone: so it was chosen. `epochs` is where
    early stopping ended the winner's run: the final training stops there too.
    """
    plan = context.plan(params, context.config.seed, folder, execution)
    assert plan.validation is not None
    everything = plan.train if params.uses_subset else plan.train.concatenate(plan.validation)
    return replace(plan, train=everything, validation=None, folds=(), epochs_to_train=epochs)


def measure_on_test(
    model: nn.Module, plan: TrainingPlan, context: StudyContext, search: optuna.Study, model_dir: str
) -> dict[str, Any]:
    """Evaluate on the test split: scores with a bootstrap interval, the confusion matrix, a simple baseline.

    Each evaluation on test is counted in the study: a test split looked at often is a validation split.
    """
    if context.data.test is None:
        return {"test": None, "confusion": None, "baseline": None}
    features = context.features("test", plan.params.model)
    model.to(plan.execution.device)  # one that was read from disk, or was kept in 4 bits, is on the host
    found = evaluate(model, features, context.task, context.scorer, plan.execution)
    seen = [*search.user_attrs.get("test_evaluations", []), {"model_dir": Path(model_dir).name}]
    seen[-1] |= {"value": found.metrics[context.scorer.name], "when": time.strftime("%Y-%m-%d %H:%M:%S")}
    search.set_user_attr("test_evaluations", seen)
    baseline = context.task.baseline(context.data, context.config.metric)
    confusion = context.task.confusion_matrix(found.predictions, found.references, context.data)
    return {
        "test": {
            "metrics": found.metrics,
            "interval": bootstrap_interval(found, context),
            "rows": len(found.references),
            "seen": len(seen),
        },
        "baseline": None if baseline is None else {"name": baseline[0], "value": baseline[1]},
        "confusion": confusion,
    }


def bootstrap_interval(found: Evaluation, context: StudyContext) -> list[float]:
    """The 95% percentile bootstrap interval of the metric over the test rows (Efron, 1979)."""
    rng = np.random.default_rng(0)
    name, rows = context.scorer.name, len(found.predictions)
    if name == "loss":
        return []
    draws = (rng.integers(0, rows, rows) for _ in range(RESAMPLES))
    values = [context.scorer(found.predictions[draw], found.references[draw])[name] for draw in draws]
    return [float(bound) for bound in np.nanpercentile(values, [2.5, 97.5])]


def save_final(
    model: nn.Module,
    adapter: AdapterWeights | None,
    plan: TrainingPlan,
    context: StudyContext,
    search: optuna.Study,
    result: dict[str, Any],
    target: Path,
) -> None:
    """Write model, processor, card and `hpo.json` aside, then put the folder in its place.

    `adapter` is what was merged into the model, kept by itself where the study asks for it.
    """
    scratch = target.with_name(f".{target.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    context.task.finalize_model(model, context.data)
    save_model(model, scratch)
    if adapter is not None and context.config.keep_adapter:
        adapter.save(scratch / ADAPTER, model)
    plan.candidate.processor.save_pretrained(scratch)
    versions = search.user_attrs["versions"]
    card = model_card(context.config.redacted(), result, describe_data(context.data), versions)
    (scratch / "README.md").write_text(card, encoding="utf-8")
    record = {
        "study": search.study_name,
        "task": context.config.task,
        "metric": context.scorer.name,
        "columns": dict(context.data.columns),
        "max_length": context.max_length(plan.params.model),
        "versions": versions,
        "fingerprint": context.data.fingerprint,
        "result": {**result, "model_dir": target.name},
    }
    (scratch / "hpo.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)


def _validated_model(
    winner: Confirmed, params: TrialParams, context: StudyContext, folder: Path
) -> tuple[nn.Module, AdapterWeights | None, TrainingPlan]:
    """The checkpoint that the confirm stage validated: the best of the winner's seeds. Its adapter and plan."""
    sign = loss_sign(context.scorer.direction)
    seed = min(winner.values, key=lambda s: sign * winner.values[s])
    kept = confirmed_model(context.config.name, Job(winner.trial, seed))
    model = context.task.build_model(str(kept), local_files_only=True)
    return model, AdapterWeights.load(kept / ADAPTER), context.plan(params, seed, folder)


def _epochs_trained(search: optuna.Study, number: int) -> float | None:
    trial = next(t for t in search.get_trials(deepcopy=False) if t.number == number)
    return trial.user_attrs.get("epochs_trained")


def _defaults(search: optuna.Study) -> dict[str, Any] | None:
    best = best_default(search)
    if best is None:
        return None
    return {"trial": best.number, "value": best.value, "params": params_of(best)}


def _seconds(search: optuna.Study) -> dict[str, float]:
    trials = search.get_trials(deepcopy=False)
    starts = [t.datetime_start for t in trials if t.datetime_start]
    ends = [t.datetime_complete for t in trials if t.datetime_complete]
    return {"search": (max(ends) - min(starts)).total_seconds()} if starts and ends else {}
