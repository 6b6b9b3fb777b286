"""The status of a study with 5,000 trials, read in few SQL statements."""

import json
import socket
from collections.abc import Callable
from datetime import datetime, timedelta

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import create_engine, event, insert, text
from sqlalchemy.orm import Session

from hpo.errors import StudyError
from hpo.storage.budget import add_seconds, clear_parent, set_budget, set_parent, set_phase
from hpo.storage.lease import Worker
from hpo.storage.models import WorkerRow
from hpo.storage.status import StudyStatus, read_status
from hpo.storage.storage import Storage

TRIALS = 5_000


def fill(storage: Storage, study: optuna.Study, count: int = TRIALS) -> None:
    """Insert trials as Optuna stores them, with 10 reports each. Trial 0 is waiting, 1 is running."""
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    engine = create_engine(storage.url)  # without the timeouts of hpo's engine, because this is a lot at once
    with Session(engine) as session, session.begin():
        numbers = range(count)
        rows = [
            {
                "trial_id": n + 1,
                "number": n,
                "study_id": study._study_id,
                "state": {0: TrialState.WAITING, 1: TrialState.RUNNING}.get(n, states[n % 5]),
                "datetime_start": datetime(2026, 1, 1),
            }
            for n in numbers
        ]
        session.execute(insert(models.TrialModel), rows)
        if storage.engine.dialect.name == "postgresql":  # explicit ids do not advance its sequence
            session.execute(text("SELECT setval(pg_get_serial_sequence('trials', 'trial_id'), :last)"), {"last": count})
        finite = models.TrialValueModel.TrialValueType.FINITE
        session.execute(
            insert(models.TrialValueModel),
            [
                {"trial_id": row["trial_id"], "objective": 0, "value": row["number"] / count, "value_type": finite}
                for row in rows
                if row["state"] in (TrialState.COMPLETE, TrialState.PRUNED)
            ],
        )
        space = {
            "learning_rate": (FloatDistribution(1e-6, 1e-3, log=True), 1e-4),
            "model": (CategoricalDistribution(["small", "large"]), 1.0),
        }
        session.execute(
            insert(models.TrialParamModel),
            [
                {"trial_id": n + 1, "param_name": k, "param_value": v, "distribution_json": distribution_to_json(d)}
                for n in numbers
                for k, (d, v) in space.items()
            ],
        )
        session.execute(
            insert(models.TrialIntermediateValueModel),
            [
                {"trial_id": n + 1, "step": s, "intermediate_value": 0.5, "intermediate_value_type": finite.name}
                for n in numbers
                for s in range(1, 11)
            ],
        )
        session.execute(
            insert(models.TrialUserAttributeModel),
            [
                {"trial_id": row["trial_id"], "key": "failure", "value_json": json.dumps(f"reason {row['number']}")}
                for row in rows
                if row["state"] == TrialState.FAIL and row["number"] < count - 5
            ],
        )
    engine.dispose()


def test_status_at_5000_trials(storage: Storage, study: optuna.Study) -> None:
    fill(storage, study)
    study.set_user_attr("metric", "f1_macro")
    set_budget(study, 6000, 7200.0)
    add_seconds(study, 1800)
    set_phase(study, "confirm")
    set_parent(study)
    confirm = storage.create_child_study("study/confirm", study, 6)
    final = storage.create_child_study("study/final", study, 1, phase="retrain")
    for _ in range(2):
        confirm.tell(confirm.ask(), 0.5)
    confirm.ask()
    final.ask()
    statements: list[str] = []
    event.listen(storage.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    assert read_status(storage, "study") == StudyStatus(
        name="study",
        metric="f1_macro",
        direction="maximize",
        phase="confirm",
        counts={"running": 1, "waiting": 1, "complete": 2999, "pruned": 999, "failed": 1000},
        max_trials=6000,
        max_hours=2.0,
        hours_run=0.5,
        best_trial=4999,
        best_value=0.9998,
        best_params={"learning_rate": 1e-4, "model": "large"},
        workers=(),
        confirm_done=2,
        confirm_total=6,
        failures=(
            (4998, "no reason was recorded"),
            (4993, "reason 4993"),
            (4988, "reason 4988"),
            (4983, "reason 4983"),
            (4978, "reason 4978"),
        ),
    )
    assert len([statement for statement in statements if statement.startswith("SELECT")]) <= 13


def test_best_trial_of_a_minimized_value_is_finite(storage: Storage, make_study: Callable[..., optuna.Study]) -> None:
    study = optuna.create_study(study_name="loss", storage=storage, direction="minimize")
    set_budget(study, None)
    empty = read_status(storage, "loss")
    assert (empty.best_trial, empty.best_value, empty.best_params, empty.metric) == (None, None, {}, "value")
    for value in (0.5, float("-inf"), 0.25, 0.25, 0.75):
        study.tell(study.ask(), value)
    pruned = study.ask()
    pruned.report(0.1, 1)
    study.tell(pruned, state=TrialState.PRUNED)
    status = read_status(storage, "loss")
    assert (status.direction, status.best_trial, status.best_value) == ("minimize", 2, 0.25)
    assert (status.max_trials, status.max_hours) == (6, None)  # without a limit: the number of trials


def test_workers_and_the_age_of_their_heartbeats(
    storage: Storage, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.storage.lease.HEARTBEAT_SECONDS", 3600)
    worker = Worker(storage, study, "cuda:0")
    trial = worker.claim(study)
    assert trial is not None
    worker.release(trial)
    assert worker.claim(study) is not None
    worker.progress(phase="search", step=2, epoch=1.0, epochs=3)
    worker.warn("the bucket is unavailable")
    worker._send_heartbeat()
    with storage.transaction() as session:
        session.get_one(WorkerRow, worker.worker_id).heartbeat_at -= timedelta(seconds=100)
    found = read_status(storage, "study").workers[0]
    assert 90 < found.heartbeat_age < 1000
    assert (found.worker_id, found.host, found.device, found.phase) == (
        worker.worker_id,
        socket.gethostname(),
        "cuda:0",
        "search",
    )
    assert (found.trial, found.attempt, found.step, found.epoch, found.epochs) == (0, 2, 2, 1.0, 3)
    worker._send_heartbeat()
    assert read_status(storage, "study").workers[0].heartbeat_age < 90
    worker.close()
    gone = read_status(storage, "study")
    assert gone.workers == () and gone.warnings == ("the bucket is unavailable",)


def test_unknown_study_raises_with_the_known_ones(storage: Storage, study: optuna.Study) -> None:
    with pytest.raises(StudyError, match=r"no study 'stduy' in .* Did you mean 'study'\? There are: study\."):
        read_status(storage, "stduy")
    optuna.create_study(study_name="stranger", storage=storage)
    with pytest.raises(StudyError, match="not created by hpo"):
        read_status(storage, "stranger")


def test_study_without_a_parent_or_worker_is_interrupted(storage: Storage, study: optuna.Study) -> None:
    assert read_status(storage, study.study_name).phase == "interrupted"
    set_parent(study)
    assert read_status(storage, study.study_name).phase == "search"
    clear_parent(study)
    assert read_status(storage, study.study_name).phase == "interrupted"
    set_phase(study, "failed", "All confirming runs failed")
    status = read_status(storage, study.study_name)
    assert (status.phase, status.reason) == ("failed", "All confirming runs failed")
