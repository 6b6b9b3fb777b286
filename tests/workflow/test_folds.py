"""A study with k-fold validation: each trial is the mean over folds; the final model learns from all of them."""

from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpo
from hpo.config.load import load_config
from hpo.config.trial_params import TrialParams
from hpo.core.format import score
from hpo.core.paths import run_folder
from hpo.errors import StudyError
from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import TrialRecord
from hpo.storage.status import read_status
from hpo.storage.storage import open_storage
from hpo.training import fine_tune
from hpo.training.execution import Execution
from hpo.workflow.context import StudyContext
from hpo.workflow.replay import replay
from hpo.workflow.worker.final_model import refit_plan


@pytest.fixture
def folded(study: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The study with 90 training rows in three folds, and 32 for test."""
    reviews = tmp_path / "reviews"
    reviews.mkdir()
    for split, rows in (("train", 90), ("test", 32)):
        lines = (Path(study["data"]) / f"{split}.csv").read_text().splitlines()
        (reviews / f"{split}.csv").write_text("\n".join(lines[: rows + 1]))
    return {**study, "data": {"path": str(reviews), "folds": 3}}


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


def test_a_search_with_folds(
    folded: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = fine_tune.FineTuning._train_step
    seen: set[str] = set()

    def interrupted(self: Any, *given: Any) -> None:
        train(self, *given)
        if self.progress.rung == 1 and self.plan.folder.name == "fold-2":
            self.plan.stop.set()

    folded |= {"budget": {"max_trials": 2}, "confirm": {"top": 1, "seeds": 1}, "pruner": "none"}
    with monkeypatch.context() as patched:
        patched.setattr(fine_tune.FineTuning, "_train_step", interrupted)
        with pytest.raises(StudyError, match="stopped before its end"):
            hpo.run(folded)
    folders = list(run_folder("reviews").glob("checkpoints/*"))
    assert {path.name for folder in folders for path in folder.glob("fold-*")} == {"fold-1", "fold-2", "fold-3"}
    result = hpo.run(folded)
    trials = result.study.trials
    first = trials[0]
    assert first.user_attrs["attempt"] == 2 and "restarted" not in first.user_attrs
    assert [point.step for point in TrialRecord.of(first).curve] == [1, 2, 3] == sorted(first.intermediate_values)
    for trial in trials:
        assert trial.value == trial.user_attrs["metrics"]["accuracy"]
        assert set(trial.user_attrs["spread"]) == set(trial.user_attrs["metrics"])
        seen.add(str(trial.user_attrs["spread"]["loss"]))
    assert len(seen) == 2
    spread = result.study.best_trial.user_attrs["spread"]["accuracy"]
    assert read_status(open_storage(), "reviews").best_spread == pytest.approx(spread)
    said, folder = capsys.readouterr().out, run_folder("reviews")
    assert f"± {score(spread)} between folds in trial {result.study.best_trial.number}" in said
    assert "reviews: searching" in said and "2 of 2 trials (2 complete)" in said  # inline as anywhere
    assert f"± {score(spread)}</span>" in (folder / "report.html").read_text()
    assert "spread.accuracy" in (folder / "trials.csv").read_text().splitlines()[0]
    assert not list(run_folder("reviews").glob("checkpoints/*/fold-*"))
    recorded = StudyRecord.of(result.study).data
    assert recorded.sizes == {"in 3 folds": 90, "test": 32}
    assert any(note.startswith("3 folds of the 90 training rows") and "seed 0" in note for note in recorded.notes)
    assert (result.model_dir / "model.safetensors").is_file() and 0 <= result.metrics["accuracy"] <= 1
    again = replay(result.study, 0)
    assert again.replayed == again.recorded
