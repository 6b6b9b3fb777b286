"""Interrupts a study in the middle of a trial."""

from typing import Any

import pytest

import hpo
from hpo.errors import StudyError
from hpo.training import fine_tune


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
