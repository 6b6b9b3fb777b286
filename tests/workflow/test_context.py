"""The study's context: the plans of its runs, on subsets and folds, and the check of remote checkpoints."""

from dataclasses import FrozenInstanceError, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpo
from hpo.config.load import load_config
from hpo.config.trial_params import TrialParams
from hpo.errors import ConfigError
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning
from hpo.workflow.context import Attempt, StudyContext
from hpo.workflow.worker.final_model import refit_plan


@pytest.fixture
def context(study: dict[str, Any]) -> StudyContext:
    return StudyContext.create(load_config(study), Execution())


def test_context_is_immutable_and_an_attempt_reaches_the_plan(context: StudyContext, tmp_path: Path) -> None:
    with pytest.raises(FrozenInstanceError):
        context.config = context.config  # type: ignore[misc]
    attempt, params = Attempt(number=3), TrialParams(model="deep", epochs=1)
    plan = context.plan(params, 0, tmp_path, attempt=attempt)
    assert plan.attempt == 3 and plan.stop is attempt.stop and plan.on_checkpoint is attempt.on_checkpoint
    others = [context.plan(params, 0, tmp_path) for _ in range(2)]
    assert others[0].attempt == 1 and others[0].stop is not others[1].stop


def test_subset_is_the_same_for_each_seed_and_the_final_model(context: StudyContext, tmp_path: Path) -> None:
    params = TrialParams(model="deep", shots=4, epochs=1)
    one, other = (context.plan(params, seed, tmp_path) for seed in (0, 5))
    assert len(one.train) == 8 and np.bincount(one.train.all_labels()).tolist() == [4, 4]
    assert one.train is other.train
    assert len(context.plan(TrialParams(model="deep", train_fraction=0.25), 0, tmp_path).train) == 60
    full = context.plan(TrialParams(model="deep"), 0, tmp_path)
    assert len(full.train) == 240 and full.train.key != one.train.key
    assert refit_plan(params, None, context, tmp_path, Execution()).train is one.train
    list(FineTuning(one).reports())
    with pytest.raises(ValueError, match="shots or train_fraction, not both"):
        TrialParams(model="deep", shots=4, train_fraction=0.5)


def test_class_weights_are_exact_in_micro_batches_and_unused_in_evaluation(
    context: StudyContext, tmp_path: Path
) -> None:
    params = {"model": "shallow", "train_fraction": 0.1, "epochs": 1, "learning_rate": 1e-3, "dropout": 0}

    def losses(execution: Execution, **more: Any) -> tuple[float, float]:
        plan = context.plan(TrialParams(**params, **more), 0, tmp_path, execution)
        uneven = np.where(np.arange(len(plan.train)) < 9, 0, plan.train.all_labels())
        run = FineTuning(replace(plan, train=replace(plan.train, labels=uneven)))
        report = next(iter(run.reports()))
        return report.train_loss, report.metrics["loss"]

    full = losses(Execution(), class_weights="balanced")
    assert losses(Execution(micro_batch=5), class_weights="balanced") == pytest.approx(full, rel=1e-5)
    assert losses(Execution())[0] != pytest.approx(full[0], rel=1e-3)
    lazy = {"class_weights": "balanced", "warmup_ratio": 0.99}  # the rate of the only step is 0
    assert losses(Execution(), **lazy)[1] == pytest.approx(losses(Execution(), warmup_ratio=0.99)[1], rel=1e-6)


def test_each_fold_trains_on_the_others(folded: dict[str, Any], tmp_path: Path) -> None:
    context = StudyContext.create(load_config(folded), Execution())
    plan = context.plan(TrialParams(model="deep"), 0, tmp_path)
    assert [(len(train), len(validation)) for train, validation in plan.folds] == [(60, 30)] * 3
    held_out = [validation for _, validation in plan.folds]
    for fold, (train, _) in enumerate(plan.folds):
        others = reduce(lambda one, other: one.concatenate(other), held_out[:fold] + held_out[fold + 1 :])
        assert np.array_equal(train.columns["input_ids"][0], others.columns["input_ids"][0])
    assert plan.train is plan.folds[0][0] and plan.validation is plan.folds[0][1]
    final = refit_plan(plan.params, None, context, tmp_path, Execution())
    assert len(final.train) == 90 and final.validation is None and final.folds == ()
    few = context.plan(TrialParams(model="deep", shots=4), 0, tmp_path)
    for train, validation in few.folds:
        assert np.bincount(train.all_labels()).tolist() == [4, 4] and len(validation) == 30


def test_unusable_remote_checkpoints_raise_before_training(study: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="checkpoints: nowhere://x cannot be opened"):
        hpo.run({**study, "checkpoints": "nowhere://x"})
    with pytest.raises(ConfigError, match="checkpoints: must not contain a password"):
        load_config({**study, "checkpoints": "sftp://me:secret@host/x"})
