"""A status and a result, as the console tests show them."""

from pathlib import Path

from hpo.core.cache import DiskUse
from hpo.storage.records.final_model import Baseline, ConfirmedTrial, DataRecord, FinalModel, FinalScores, FirstTrial
from hpo.storage.status import StudyStatus, WorkerStatus

PARAMS = {
    "model": "bért-3x128 [red]",
    "learning_rate": 3.2182e-05,
    "frozen_layers": 1,
    "frozen_share": 0.3,
    "dropout": None,
}
STATUS = StudyStatus(
    name="quick [red]start\x1b[31m 学",
    metric="accuracy",
    direction="maximize",
    phase="search",
    counts={"running": 2, "waiting": 0, "complete": 6, "pruned": 2, "failed": 1},
    max_trials=16,
    max_hours=None,
    hours_run=90 / 3600,
    best_trial=7,
    best_value=0.70423,
    best_params=PARAMS,
    workers=(
        WorkerStatus(
            1, "box", 11, "cuda:0", "search", trial=9, step=2, epoch=1.5, epochs=4, attempt=2, heartbeat_age=1.0
        ),
        WorkerStatus(2, "box", 12, "cuda:1", "search", trial=10, heartbeat_age=31.0),
    ),
    failures=((3, "Diverged: the loss became NaN [bold] at step 12"),),
    warnings=("checkpoints: s3://bucket cannot be written.",),
    disk=DiskUse(checkpoints=1_500_000, results=40_000, cache=3 * 2**30),
)
CONFIRMED = (
    ConfirmedTrial(trial=7, params=PARAMS, values={1: 0.70, 2: 0.71}, search_value=0.704),
    ConfirmedTrial(trial=4, params=PARAMS, values={1: 0.68, 2: 0.70}, search_value=0.712),
)
RESULT = FinalModel(
    study="quick",
    task="text-classification",
    metric="accuracy",
    winner=CONFIRMED[0],
    confirmed=CONFIRMED,
    defaults=FirstTrial(trial=1, value=0.68, params=PARAMS),
    test=FinalScores(metrics={"accuracy": 0.7123, "loss": 0.9}, interval=(0.68, 0.74), rows=1000, evaluations=2),
    baseline=Baseline(name="TF-IDF + logistic regression", value=0.655),
    seconds={"search": 200.0, "confirm": 30.0},
    refit="train+validation",
    model_dir=Path("studies/runs/quick/final"),
    command="hpo retrain quick --trial 7",
    data=DataRecord(),
    max_length=0,
)
