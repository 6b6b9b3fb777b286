"""A trial stopped on one machine goes on on another from the copy of its checkpoint; without one it says so."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import hpo
from hpo.config.load import load_config
from hpo.core.paths import run_folder
from hpo.errors import ConfigError, StudyError
from hpo.reporting.console import console
from hpo.storage.records.trial import TrialRecord
from hpo.storage.status import read_status
from hpo.storage.storage import open_storage
from hpo.training import fine_tune
from hpo.training.checkpoints.remote import RemoteCheckpoints
from hpo.workflow.context import StudyContext
from hpo.workflow.stop import delete
from tests.training.checkpoints.test_remote import Flaky, flaky

__all__ = ["flaky"]  # a fixture


def stop_in_mid_trial(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the study on a machine that is preempted after the first trial's first rung."""
    train = fine_tune.FineTuning._train_step

    def interrupted(self: Any, *given: Any) -> None:
        train(self, *given)
        if self.progress.rung == 1:
            self.plan.stop.set()

    with monkeypatch.context() as patched:
        patched.setattr(fine_tune.FineTuning, "_train_step", interrupted)
        with pytest.raises(StudyError, match="stopped before its end"):
            hpo.run(study)


@pytest.fixture
def one_trial(study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{tmp_path / 'hpo.db'}")
    return study | {"budget": {"max_trials": 1}, "confirm": {"top": 1, "seeds": 1}, "pruner": "none"}


@pytest.mark.parametrize("reached", [True, False], ids=["reached", "out of reach"])
def test_a_trial_goes_on_on_another_machine(
    reached: bool, one_trial: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = tmp_path / "bucket"
    if reached:
        one_trial["checkpoints"] = f"file://{bucket}"
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "first"))
    stop_in_mid_trial(one_trial, monkeypatch)
    assert bucket.exists() == reached
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "second"))
    (trial,) = hpo.run(one_trial).study.trials
    assert trial.user_attrs["attempt"] == 2
    assert [point.step for point in TrialRecord.of(trial).curve] == [1, 2, 3]
    assert ("restarted" in trial.user_attrs) != reached
    assert not [path for path in bucket.rglob("*") if path.is_file()]


@pytest.mark.parametrize("gone_meanwhile", [False, True])
def test_deleting_a_study_removes_its_copies_or_says_what_is_left(
    gone_meanwhile: bool,
    one_trial: dict[str, Any],
    flaky: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bucket = Path(flaky.removeprefix("flaky://"))
    stop_in_mid_trial(one_trial | {"checkpoints": flaky}, monkeypatch)
    assert list(bucket.glob("reviews/reviews-0/checkpoint-1-*/state.json"))
    assert list(run_folder("reviews").glob("checkpoints/reviews-0/checkpoint-1-*"))
    Flaky.failing = math.inf if gone_meanwhile else 0
    delete("reviews")
    told = capsys.readouterr().err
    assert ("copies of checkpoints remain in reviews (ConnectionError: no route)" in told) == gone_meanwhile
    assert (bucket / "reviews").exists() == gone_meanwhile
    assert not run_folder("reviews").exists()


def test_a_place_that_fails_costs_no_trial_and_is_told_aloud_once(
    one_trial: dict[str, Any], flaky: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, check = StudyContext.plan, RemoteCheckpoints.check
    often = lambda *given, **more: replace(plan(*given, **more), checkpoint_seconds=0.0)  # noqa: E731

    def then_away(self: RemoteCheckpoints) -> None:
        check(self)
        Flaky.failing = math.inf

    monkeypatch.setattr(StudyContext, "plan", often)
    monkeypatch.setattr(RemoteCheckpoints, "check", then_away)
    result = hpo.run(one_trial | {"checkpoints": flaky, "budget": {"max_trials": 2}})
    assert [trial.state for trial in result.study.trials] == [TrialState.COMPLETE] * 2
    assert Flaky.calls > 10
    (warning,) = read_status(open_storage(), "reviews").warnings
    assert f"{flaky} cannot be written" in warning and "ConnectionError: no route" in warning
    assert capsys.readouterr().out.count("cannot be written") == 1  # by the run itself, too
    console.show_status(read_status(open_storage(), "reviews"))
    assert capsys.readouterr().out.count("cannot be written") == 1


def test_what_other_machines_left_of_finished_trials_goes_with_the_stage(
    one_trial: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that was begun here and told its end elsewhere: as it waited, when the budget was spent."""
    bucket = tmp_path / "bucket"
    one_trial |= {"checkpoints": f"file://{bucket}", "budget": {"max_trials": 2}}
    stop_in_mid_trial(one_trial, monkeypatch)
    study = optuna.load_study(study_name="reviews", storage=open_storage())
    study._storage.set_trial_state_values(study.trials[0]._trial_id, TrialState.PRUNED)
    assert list(bucket.glob("*/reviews-0/*")) and list(run_folder("reviews").glob("checkpoints/reviews-0/*"))
    hpo.run(one_trial)
    assert not list(bucket.glob("*/reviews-0")) and not list(run_folder("reviews").glob("checkpoints/*"))


def test_a_place_for_checkpoints_is_checked_first(study: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="checkpoints: nowhere://x cannot be opened"):
        hpo.run({**study, "checkpoints": "nowhere://x"})
    with pytest.raises(ConfigError, match="checkpoints: must not contain a password"):
        load_config({**study, "checkpoints": "sftp://me:secret@host/x"})
