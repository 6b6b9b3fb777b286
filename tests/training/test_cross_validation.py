"""k-fold cross-validation: the mean over folds at each rung, with folds suspended in memory or in checkpoints."""

import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo.config.trial_params import Report
from hpo.training import cross_validation, fine_tune
from hpo.training.batches.features import Features
from hpo.training.checkpoints.checkpoint import remove_checkpoints
from hpo.training.cross_validation import CrossValidation, start_training
from hpo.training.fine_tune import FineTuning, Stopped
from hpo.training.frozen.cache import USED, PrefixCache
from hpo.training.plan import TrainingPlan
from tests.training.conftest import make_features

Plan = Callable[..., TrainingPlan]
Numbers = list[tuple[Any, ...]]


@pytest.fixture
def folded(plan: Plan) -> Plan:
    """Build a plan with three folds of 16 rows."""

    def make(of: dict[str, Any] | None = None, **params: Any) -> TrainingPlan:
        parts = [replace(make_features(16, seed=number), key=f"fold {number}") for number in range(3)]
        folds = tuple(
            (reduce(Features.concatenate, parts[:number] + parts[number + 1 :]), part)
            for number, part in enumerate(parts)
        )
        (train, validation), *_ = folds
        own = {"train": train, "validation": validation, "folds": folds, **(of or {})}
        return plan(of=own, **{"epochs": 3, "dropout": 0.1, "learning_rate": 1e-2, **params})

    return make


def numbers(reports: list[Report]) -> Numbers:
    return [(one.step, one.value, one.train_loss, *one.metrics.items(), *one.spread.items()) for one in reports]


def train_fold(plan: TrainingPlan, fold: int) -> list[Report]:
    """Return the reports of a fold that is trained by itself."""
    train, validation = plan.folds[fold]
    folder = plan.folder.parent / f"single-{fold}"
    return list(FineTuning(replace(plan, train=train, validation=validation, folds=(), folder=folder)).reports())


def test_report_is_the_mean_over_independently_trained_folds(folded: Plan) -> None:
    made = folded()
    run = start_training(made)
    assert isinstance(run, CrossValidation)
    reports = list(run.reports())
    single = [train_fold(made, fold) for fold in range(3)]
    assert [report.step for report in reports] == [1, 2, 3]
    for rung, report in enumerate(reports):
        losses = [one[rung].metrics["loss"] for one in single]
        assert len(set(losses)) == 3
        assert report.metrics["loss"] == statistics.fmean(losses) and report.spread["loss"] == statistics.stdev(losses)
        assert report.value == statistics.fmean(one[rung].value for one in single)
        assert report.train_loss == statistics.fmean(one[rung].train_loss for one in single)
        assert report.epoch == rung + 1
    assert reports[-1].seconds.keys() == single[0][-1].seconds.keys() and run.seconds == reports[-1].seconds


def test_results_do_not_depend_on_where_folds_are_suspended(folded: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    made = folded({"rungs_per_epoch": 5})  # more rungs than the four steps of an epoch
    expected = numbers(list(start_training(made).reports()))
    assert len(expected) == 15
    remove_checkpoints(made.folder)  # a slow machine writes some
    monkeypatch.setattr(cross_validation, "has_room", lambda *_: False)
    found = start_training(made)
    assert numbers(list(found.reports())) == expected
    assert sorted(path.name for path in made.folder.iterdir()) == ["fold-1", "fold-2", "fold-3"]
    remove_checkpoints(made.folder)
    assert not made.folder.exists()


class Killed(BaseException):
    """Simulates SIGKILL: no handler runs after it."""


@pytest.mark.parametrize("suspended", ["in memory", "in a checkpoint"])
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_interrupted_run_resumes_with_the_same_results(
    suspended: str, end: str, folded: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_validation, "has_room", lambda *_: suspended == "in memory")
    made = folded()
    expected = numbers(list(start_training(made).reports()))
    remove_checkpoints(made.folder)
    train, steps = FineTuning._train_step, [0]

    def interrupted(self: FineTuning, *given: Any) -> None:
        train(self, *given)
        steps[0] += 1
        if steps[0] == 19:  # of 36, in the second epoch of the second fold
            if end == "killed":
                raise Killed
            self.plan.stop.set()

    monkeypatch.setattr(fine_tune.FineTuning, "_train_step", interrupted)
    with pytest.raises((Stopped, Killed)):
        list(start_training(replace(made, checkpoint_seconds=0.0)).reports())
    torch.manual_seed(99)
    assert numbers(list(start_training(replace(made, stop=type(made.stop)())).reports())) == expected
    assert steps[0] <= 36 + 3  # a fold suspended in memory had saved before its last step


def test_early_stopping_uses_the_mean(folded: Plan) -> None:
    made = folded(learning_rate=1e-9, epochs=6, early_stopping_patience=2)
    run = start_training(made)
    reports = list(run.reports())
    assert run.outcome.step == 1
    assert [report.step for report in reports] == [1, 2, 3]  # nothing is learned: no improvement after the first


def test_prefix_cache_stores_the_rows_of_each_fold_once(folded: Plan, tmp_path: Path) -> None:
    made = folded(frozen_layers=1, dropout=0.0)
    expected = list(start_training(made).reports())
    store = PrefixCache(tmp_path / "prefixes")
    store._objection = lambda *_: ""  # type: ignore[method-assign]
    run = start_training(replace(made, prefixes=store, folder=tmp_path / "other"))
    found = list(run.reports())
    assert run.execution.prefix_cache == USED
    assert (
        len(list((tmp_path / "prefixes").glob("*/manifest.json"))) == 3
    )  # one for each fold's rows, none for their unions
    for one, other in zip(found, expected, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-3)
        assert one.metrics["loss"] == pytest.approx(other.metrics["loss"], rel=1e-3)
