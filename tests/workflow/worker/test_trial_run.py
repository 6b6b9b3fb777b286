"""One leased trial: failed, released, or resumed on another machine from a remote checkpoint."""

import errno
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import hpo
from hpo.core.paths import named_folder
from hpo.errors import StorageError
from hpo.reporting.console import console
from hpo.storage.records.trial import TrialRecord
from hpo.storage.status import read_status
from hpo.storage.storage import open_storage
from hpo.training import fine_tune
from hpo.training.checkpoints.remote import RemoteCheckpoints
from hpo.workflow.context import StudyContext
from tests.training.checkpoints.test_remote import Flaky, flaky
from tests.workflow.interruption import stop_in_mid_trial

__all__ = ["flaky"]  # a fixture


def test_diverging_trial_fails_alone(study: dict[str, Any]) -> None:
    study["search_space"]["learning_rate"] = [1e-2, 1e30]
    study["first_trials"] = [{"learning_rate": 1e30}, {"learning_rate": 1e-2}]
    result = hpo.run({**study, "budget": {"max_trials": 4}})
    failed = [t for t in result.study.trials if t.state == TrialState.FAIL]
    assert failed
    assert all(t.user_attrs["failure"].startswith("Diverged") for t in failed)
    assert result.params["learning_rate"] == 1e-2


def test_full_disk_stops_the_study_which_can_be_resumed(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:

    def full(*_: Any) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(fine_tune, "save_checkpoint", full)
        patched.setattr(fine_tune.FineTuning, "_save_if_due", fine_tune.FineTuning.save)
        with pytest.raises(StorageError, match="The disk is full"):
            hpo.run(study)
    result = hpo.run(study)
    assert len(result.study.trials) == 5
    assert not [t for t in result.study.trials if t.state == TrialState.FAIL]


@pytest.mark.parametrize("reached", [True, False], ids=["reached", "out of reach"])
def test_trial_is_resumed_on_another_machine(
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


def test_failing_remote_checkpoints_cost_no_trial_and_warn_once(
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


def test_files_of_trials_finished_elsewhere_are_removed_with_the_stage(
    one_trial: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that ran here and was pruned elsewhere while it waited, because the budget was spent."""
    bucket = tmp_path / "bucket"
    one_trial |= {"checkpoints": f"file://{bucket}", "budget": {"max_trials": 2}}
    stop_in_mid_trial(one_trial, monkeypatch)
    study = optuna.load_study(study_name="reviews", storage=open_storage())
    study._storage.set_trial_state_values(study.trials[0]._trial_id, TrialState.PRUNED)
    assert list(bucket.glob("*/reviews-0/*")) and list(named_folder("reviews").glob("checkpoints/reviews-0/*"))
    hpo.run(one_trial)
    assert not list(bucket.glob("*/reviews-0")) and not list(named_folder("reviews").glob("checkpoints/*"))
