"""Checkpoints: valid whenever the process is killed, ordered by attempt and step, and written when due."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo.training.checkpoints import checkpoint
from hpo.training.checkpoints.checkpoint import CheckpointTimer, remove_checkpoints
from hpo.training.fine_tune import FineTuning
from hpo.training.plan import TrainingPlan
from tests.training.conftest import train_steps

Plan = Callable[..., TrainingPlan]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_only_the_latest_checkpoint_remains(plan: Plan) -> None:
    made = plan()
    for step in (2, 3):
        train_steps(FineTuning(made), step).save()
        assert names(made.folder) == [f"checkpoint-1-{step}"]
    (made.folder / ".checkpoint-1-9.4242").mkdir()  # left by a killed process
    remove_checkpoints(made.folder)
    assert not made.folder.exists()


def test_suspended_attempt_does_not_replace_a_later_attempts_checkpoint(plan: Plan) -> None:
    made = plan()
    suspended = train_steps(FineTuning(made), 4)
    second = replace(made, attempt=2)
    train_steps(FineTuning(second), 3).save()
    suspended.save()  # it continues, and has done more steps than the process that reclaimed its trial
    assert names(made.folder) == ["checkpoint-1-4", "checkpoint-2-3"]
    third = FineTuning(replace(made, attempt=3))
    assert third.progress.step == 3
    third.save()
    assert names(made.folder) == ["checkpoint-3-3"]


@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
def test_torn_checkpoint_is_not_loaded(file: str, plan: Plan) -> None:
    made = plan()
    train_steps(FineTuning(made), 2).save()
    older = made.folder / "checkpoint-1-2"
    copy = made.folder.parent / "kept"
    older.rename(copy)
    newest = train_steps(FineTuning(made), 4).save()
    copy.rename(older)
    torn = (newest / file).read_bytes()
    (newest / file).write_bytes(torn[: len(torn) // 2])
    assert FineTuning(made).progress.step == 2
    (older / file).unlink()
    assert FineTuning(made).progress.step == 0
    # A new one of the same step replaces the torn one.
    train_steps(FineTuning(made), 4).save()
    assert FineTuning(made).progress.step == 4


class Killed(BaseException):
    """Simulates SIGKILL: no handler runs after it."""


@pytest.mark.parametrize("again", [False, True], ids=["next step", "same step"])
def test_killed_at_any_call_a_valid_checkpoint_remains(
    again: bool, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan()
    train_steps(FineTuning(made), 2).save()
    run = train_steps(FineTuning(made), 2 if again else 3)
    count = {"left": 0}

    def killed_at(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **keywords: Any) -> Any:
            if count["left"] == 0:
                raise Killed
            count["left"] -= 1
            return call(*args, **keywords)

        return wrapped

    for owner, name in [
        (checkpoint, "save_file"),
        (checkpoint, "_digest"),
        (checkpoint.shutil, "rmtree"),
        (os, "fsync"),
        (Path, "rename"),
        (Path, "write_text"),
        (Path, "mkdir"),
    ]:
        monkeypatch.setattr(owner, name, killed_at(getattr(owner, name)))
    for calls in range(40):
        count["left"] = calls
        try:
            run.save()
            break
        except Killed:
            count["left"] = 1_000
            assert FineTuning(made).progress.step in (2, 3)
    assert 5 < calls < 39
    assert names(made.folder) == [f"checkpoint-1-{run.progress.step}"]


def test_full_disk_leaves_the_previous_checkpoint_only(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan()
    train_steps(FineTuning(made), 2).save()

    def full(*args: Any) -> None:
        raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")

    run = train_steps(FineTuning(made), 3)
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        run.save()
    assert names(made.folder) == ["checkpoint-1-2"]


def test_checkpoint_has_no_pickle_and_a_digest(plan: Plan) -> None:
    path = train_steps(FineTuning(plan()), 2).save()
    assert names(path) == ["state.json", "state.safetensors"]
    manifest = json.loads((path / "state.json").read_text())
    assert manifest["progress"]["step"] == 2
    assert len(manifest["digest"]) == 64


def test_checkpoints_are_written_when_due(plan: Plan) -> None:
    written: list[Path] = []
    made = plan(epochs=1, of={"checkpoint_seconds": 0.0, "on_checkpoint": written.append})
    list(FineTuning(made).reports())
    assert [path.name for path in written] == [f"checkpoint-1-{step}" for step in range(6)]
    assert names(made.folder) == ["checkpoint-1-5"]


def test_checkpoints_take_a_hundredth_of_the_time() -> None:
    weights = [torch.nn.Parameter(torch.zeros(2000, 1000))]
    timer = CheckpointTimer(60.0, weights)
    assert timer.seconds == pytest.approx(6.0)
    assert CheckpointTimer(60.0, weights, attempt=2).seconds == 3.0
    timer.saved(cost_seconds=0.2)
    assert timer.seconds == pytest.approx(20.0)
    timer.saved(cost_seconds=0.001)
    assert timer.seconds == 5.0
    timer.saved(cost_seconds=30.0)
    assert timer.seconds == 60.0
    assert not timer.is_due()


def test_random_state_is_restored(plan: Plan) -> None:
    made = plan(dropout=0.5)
    train_steps(FineTuning(made), 2).save()
    one = FineTuning(made)
    numbers = torch.rand(3)
    torch.manual_seed(1)
    FineTuning(made)
    assert torch.equal(torch.rand(3), numbers)
    assert one.progress.step == 2


def test_checkpoint_of_another_plan_is_not_loaded(plan: Plan) -> None:
    made = plan()
    train_steps(FineTuning(made), 2).save()
    assert FineTuning(plan(frozen_layers=1)).progress.step == 0
    assert FineTuning(made).progress.step == 2
