"""Optuna studies with the attributes that the workflow records, for the tests of reports."""

import math
from typing import Any

import optuna

from hpo.storage.records.final_model import (
    Baseline,
    ConfirmedTrial,
    Confusion,
    DataRecord,
    FinalModel,
    FinalScores,
    FirstTrial,
)
from hpo.storage.records.study import HeldOutEvaluation, StudyRecord
from hpo.storage.records.trial import CurvePoint, TrialRecord

MODELS = ("bert-3x128", "distilbert-4x96", "electra <script>alert(1)</script>", "=cmd|' /C calc'!A0")
RUNGS = 4


def make_study(
    trials: int = 16,
    result: bool = True,
    name: str = "quick & <script>alert('name')</script>",
    storage: Any = None,
    pruner: optuna.pruners.BasePruner | None = None,
    classes: int = 4,
) -> optuna.Study:
    """Return a study of `trials` trials, some of them pruned; the 4th fails."""
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=1),
        pruner=pruner or optuna.pruners.PercentilePruner(60),
    )
    labels = (*(f"class {number}" for number in range(classes - 1)), "<img src=x onerror=alert(2)>")
    models = [{"name": model} for model in MODELS]
    config = {
        "name": name,
        "task": "text-classification",
        "models": models,
        "data": {"path": "/somewhere/on/disk/bank <b>"},
        "metric": "accuracy",
        "budget": {"max_trials": trials},
        "seed": 7,
    }
    data = DataRecord(
        sizes={"train": 4000, "validation": 720, "test": 1000},
        labels=labels,
        notes=("12 rows of train are in test too: dropped <b>here</b>",),
        fingerprint="c0ffee12",
        columns={"text": "text", "label": "label"},
    )
    versions = {"hpo": "0.1.0", "torch": "2.13.0"}
    StudyRecord(config=config, metric="accuracy", versions=versions, data=data).save(study)
    study.optimize(_objective, n_trials=trials, catch=(RuntimeError,))
    if result:
        evaluation = HeldOutEvaluation(when="2026-03-01T10:00:00", model_dir="final", value=0.71)
        StudyRecord(test_evaluations=(evaluation,), result=make_result(study, data, versions)).save(study)
    return study


def _objective(trial: optuna.Trial) -> float:
    """Report a learning curve that is best at a learning rate of 1e-4."""
    model = trial.suggest_categorical("model", MODELS)
    rate = trial.suggest_float("learning_rate", 1e-6, 5e-4, log=True)
    batch = trial.suggest_categorical("batch_size", [8, 16, 32])
    share = trial.suggest_float("frozen_share", 0, 1)
    params = {"model": model, "learning_rate": rate, "batch_size": batch, "epochs": RUNGS, "dropout": None}
    frozen = int(share * 4)
    TrialRecord(
        params={**params, "frozen_layers": frozen, "weight_decay": 0.01},
        frozen_layers=f"{frozen} of 3",
        seed=7,
        worker="1",
    ).save(trial)
    if trial.number == 3:
        TrialRecord(failure="The loss became NaN at step 12 <i>of</i> 40.").save(trial)
        raise RuntimeError("diverged")
    top, value = 0.75 - 0.04 * (math.log10(rate) + 4) ** 2 - 0.1 * share, 0.0
    curve: list[CurvePoint] = []
    for step in range(1, RUNGS + 1):
        value = top * (1 - math.exp(-step))
        point = CurvePoint(
            step=step, epoch=step, value=value, loss=1 - value, train_loss=0.9 - value, seconds=2.0 * step
        )
        curve.append(point)
        TrialRecord(
            curve=tuple(curve),
            metrics={"accuracy": value, "loss": 1 - value},
            train_loss=0.9 - value * (1 + rate * 1000),
            gap=0.1 + value * rate * 1000,
            seconds={"load": 0.2, "train": 2.0 * step, "evaluate": 0.3, "checkpoint": 0.1},
            epochs_trained=step,
        ).save(trial)
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


def make_result(study: optuna.Study, data: DataRecord, versions: dict[str, str]) -> FinalModel:
    """The result with the study's three best trials confirmed."""
    complete = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    complete.sort(key=lambda trial: -(trial.value or 0.0))
    confirmed = tuple(
        ConfirmedTrial(
            trial=trial.number,
            params=TrialRecord.of(trial).params,
            values={101: trial.value - 0.01, 102: trial.value - 0.02},
            search_value=trial.value,
        )
        for trial in complete[:3]
        if trial.value is not None
    )
    classes = range(len(data.labels))
    matrix = tuple(tuple(50 if i == j else (i * j) % 7 for j in classes) for i in classes)
    return FinalModel(
        study=study.study_name,
        task="text-classification",
        metric="accuracy",
        winner=confirmed[0],
        confirmed=confirmed,
        defaults=FirstTrial(trial=0, value=0.61, params=TrialRecord.of(study.trials[0]).params),
        test=FinalScores(metrics={"accuracy": 0.7123, "loss": 0.81}, interval=(0.684, 0.74), rows=1000, evaluations=2),
        baseline=Baseline(name="TF-IDF + logistic regression", value=0.655),
        confusion=Confusion(labels=data.labels, matrix=matrix),
        seconds={"search": 180.0, "confirm": 31.0, "retrain": 12.0},
        model_dir="/somewhere/on/disk/runs/quick/final",
        refit="train+validation",
        command="hpo run /somewhere/on/disk/quick.yaml --trials 16",
        data=data,
        versions=versions,
        max_length=128,
    )
