"""A checkpoint is whole or not there, whatever happens while it is written."""

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

Plan = Callable[..., TrainingPlan]


def after(plan: TrainingPlan, steps: int) -> FineTuning:
    run = FineTuning(plan)
    walk = run.steps()
    while run.progress.step < steps:
        next(walk)
    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_is_kept_and_none_left_behind(plan: Plan) -> None:
    made = plan()
    for step in (2, 3):
        after(made, step).save()
        assert names(made.folder) == [f"checkpoint-1-{step}"]
    (made.folder / ".checkpoint-1-9.4242").mkdir()  # of a process that was killed
    remove_checkpoints(made.folder)
    assert not made.folder.exists()


def test_a_frozen_attempt_does_not_replace_what_the_next_one_wrote(plan: Plan) -> None:
    made = plan()
    frozen = after(made, 4)
    second = replace(made, attempt=2)
    after(second, 3).save()
    frozen.save()  # it thaws, and is further than the one that took its run over
    assert names(made.folder) == ["checkpoint-1-4", "checkpoint-2-3"]
    third = FineTuning(replace(made, attempt=3))
    assert third.progress.step == 3
    third.save()
    assert names(made.folder) == ["checkpoint-3-3"]


@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
def test_a_torn_one_is_not_read(file: str, plan: Plan) -> None:
    made = plan()
    after(made, 2).save()
    older = made.folder / "checkpoint-1-2"
    kept = made.folder.parent / "kept"
    older.rename(kept)
    newest = after(made, 4).save()
    kept.rename(older)
    torn = (newest / file).read_bytes()
    (newest / file).write_bytes(torn[: len(torn) // 2])
    assert FineTuning(made).progress.step == 2
    (older / file).unlink()
    assert FineTuning(made).progress.step == 0
    # Written anew at the same step, it replaces the torn one.
    after(made, 4).save()
    assert FineTuning(made).progress.step == 4


CALLS = ("save_file", "_digest", "_flush", "rename", "rmtree")


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs, no handler catches it."""


@pytest.mark.parametrize("again", [False, True], ids=["next step", "same step"])
def test_killed_at_any_call_one_sound_checkpoint_is_there(
    again: bool, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan()
    after(made, 2).save()
    run = after(made, 2 if again else 3)
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


def test_a_full_disk_leaves_the_older_one_and_no_rubbish(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan()
    after(made, 2).save()

    def full(*args: Any) -> None:
        raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")

    run = after(made, 3)
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        run.save()
    assert names(made.folder) == ["checkpoint-1-2"]


def test_it_holds_no_pickle_and_its_digest(plan: Plan) -> None:
    path = after(plan(), 2).save()
    assert names(path) == ["state.json", "state.safetensors"]
    manifest = json.loads((path / "state.json").read_text())
    assert manifest["progress"]["step"] == 2
    assert len(manifest["digest"]) == 64


def test_the_clock_saves_between_steps(plan: Plan) -> None:
    told: list[Path] = []
    made = plan(epochs=1, of={"checkpoint_seconds": 0.0, "on_checkpoint": told.append})
    list(FineTuning(made).reports())
    assert [path.name for path in told] == [f"checkpoint-1-{step}" for step in range(6)]
    assert names(made.folder) == ["checkpoint-1-5"]


def test_the_clock_gives_saves_a_hundredth_of_the_time() -> None:
    weights = [torch.nn.Parameter(torch.zeros(2000, 1000))]
    clock = CheckpointTimer(60.0, weights)
    assert clock.seconds == pytest.approx(6.0)
    assert CheckpointTimer(60.0, weights, attempt=2).seconds == 3.0
    clock.saved(cost_seconds=0.2)
    assert clock.seconds == pytest.approx(20.0)
    clock.saved(cost_seconds=0.001)
    assert clock.seconds == 5.0
    clock.saved(cost_seconds=30.0)
    assert clock.seconds == 60.0
    assert not clock.is_due()


def test_random_state_goes_on(plan: Plan) -> None:
    made = plan(dropout=0.5)
    after(made, 2).save()
    one = FineTuning(made)
    numbers = torch.rand(3)
    torch.manual_seed(1)
    FineTuning(made)
    assert torch.equal(torch.rand(3), numbers)
    assert one.progress.step == 2


def test_one_of_another_plan_is_not_read(plan: Plan) -> None:
    made = plan()
    after(made, 2).save()
    assert FineTuning(plan(frozen_layers=1)).progress.step == 0
    assert FineTuning(made).progress.step == 2
