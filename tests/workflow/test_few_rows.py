"""A trial on a part of the training rows, and one that weighs classes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.config.load import load_config
from hpo.config.trial_params import TrialParams
from hpo.training.execution import Execution
from hpo.training.fine_tune import FineTuning
from hpo.workflow.context import StudyContext
from hpo.workflow.worker.final_model import refit_plan


@pytest.fixture
def context(study: dict[str, Any]) -> StudyContext:
    return StudyContext.create(load_config(study), Execution())


def test_the_same_rows_for_each_seed_and_the_final_model(context: StudyContext, tmp_path: Path) -> None:
    params = TrialParams(model="deep", shots=4, epochs=1)
    one, other = (context.plan(params, seed, tmp_path) for seed in (0, 5))
    assert len(one.train) == 8 and np.bincount(one.train.all_labels()).tolist() == [4, 4]
    assert one.train is other.train
    assert len(context.plan(TrialParams(model="deep", train_fraction=0.25), 0, tmp_path).train) == 60
    whole = context.plan(TrialParams(model="deep"), 0, tmp_path)
    assert len(whole.train) == 240 and whole.train.key != one.train.key
    assert refit_plan(params, None, context, tmp_path, Execution()).train is one.train
    list(FineTuning(one).reports())
    with pytest.raises(ValueError, match="shots or train_fraction, not both"):
        TrialParams(model="deep", shots=4, train_fraction=0.5)


def test_class_weights_are_exact_in_micro_batches_and_leave_evaluation_alone(
    context: StudyContext, tmp_path: Path
) -> None:
    params = {"model": "shallow", "train_fraction": 0.1, "epochs": 1, "learning_rate": 1e-3, "dropout": 0}

    def losses(execution: Execution, **more: Any) -> tuple[float, float]:
        plan = context.plan(TrialParams(**params, **more), 0, tmp_path, execution)
        uneven = np.where(np.arange(len(plan.train)) < 9, 0, plan.train.all_labels())
        run = FineTuning(replace(plan, train=replace(plan.train, labels=uneven)))
        report = next(iter(run.reports()))
        return report.train_loss, report.metrics["loss"]

    whole = losses(Execution(), class_weights="balanced")
    assert losses(Execution(micro_batch=5), class_weights="balanced") == pytest.approx(whole, rel=1e-5)
    assert losses(Execution())[0] != pytest.approx(whole[0], rel=1e-3)
    lazy = {"class_weights": "balanced", "warmup_ratio": 0.99}  # the rate of the only step is 0
    assert losses(Execution(), **lazy)[1] == pytest.approx(losses(Execution(), warmup_ratio=0.99)[1], rel=1e-6)
