"""A trial stopped on one machine goes on on another from the copy of its checkpoint; without one it says so."""

from pathlib import Path
from typing import Any

import pytest

import hpo
from hpo.core.errors import ConfigError, StudyError
from hpo.training import fine_tune


@pytest.mark.parametrize("reached", [True, False], ids=["reached", "out of reach"])
def test_a_trial_goes_on_on_another_machine(
    reached: bool, study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{tmp_path / 'hpo.db'}")
    bucket = tmp_path / "bucket"
    study |= {"budget": {"max_trials": 1}, "confirm": {"top": 1, "seeds": 1}, "pruner": "none"}
    if reached:
        study["checkpoints"] = f"file://{bucket}"

    train = fine_tune.FineTuning._train_step

    def interrupted(self: Any, *given: Any) -> None:
        train(self, *given)
        if self.progress.rung == 1:
            self.plan.stop.set()

    with monkeypatch.context() as patched:
        patched.setattr(fine_tune.FineTuning, "_train_step", interrupted)
        monkeypatch.setenv("HPO_HOME", str(tmp_path / "first"))
        with pytest.raises(StudyError, match="stopped before its end"):
            hpo.run(study)
    assert bucket.exists() == reached
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "second"))
    (trial,) = hpo.run(study).study.trials
    assert trial.user_attrs["attempt"] == 2
    assert [point["step"] for point in trial.user_attrs["curve"]] == [1, 2, 3]
    assert ("restarted" in trial.user_attrs) != reached
    assert not [path for path in bucket.rglob("*") if path.is_file()]


def test_a_place_for_checkpoints_is_checked_first(study: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="checkpoints: nowhere://x cannot be opened"):
        hpo.run({**study, "checkpoints": "nowhere://x"})
    with pytest.raises(ConfigError, match="checkpoints: holds a password"):
        hpo.load_config({**study, "checkpoints": "sftp://me:secret@host/x"})
