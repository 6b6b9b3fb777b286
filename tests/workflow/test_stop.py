"""Deleting a study with its remote checkpoints."""

import math
from pathlib import Path
from typing import Any

import pytest

from hpo.core.paths import named_folder
from hpo.workflow.stop import delete
from tests.training.checkpoints.test_remote import Flaky, flaky
from tests.workflow.interruption import stop_in_mid_trial

__all__ = ["flaky"]  # a fixture


@pytest.mark.parametrize("gone_meanwhile", [False, True])
def test_deleting_a_study_removes_its_remote_checkpoints_or_warns(
    gone_meanwhile: bool,
    one_trial: dict[str, Any],
    flaky: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bucket = Path(flaky.removeprefix("flaky://"))
    stop_in_mid_trial(one_trial | {"checkpoints": flaky}, monkeypatch)
    assert list(bucket.glob("reviews-*/reviews-0/checkpoint-1-*/state.json"))
    assert list(named_folder("reviews").glob("checkpoints/reviews-0/checkpoint-1-*"))
    Flaky.failing = math.inf if gone_meanwhile else 0
    delete("reviews")
    output = capsys.readouterr().err
    assert ("copies of checkpoints remain in reviews-" in output and "no route" in output) == gone_meanwhile
    assert bool(list(bucket.glob("reviews-*"))) == gone_meanwhile
    assert not named_folder("reviews").exists()
