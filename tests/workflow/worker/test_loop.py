"""The loop of a worker over the stages of a study."""

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import hpo
from hpo.storage.status import read_status
from hpo.storage.storage import open_storage
from hpo.workflow.worker import loop


def test_search_ends_early_enough_for_the_other_stages(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds_left(search: optuna.Study) -> float:
        return 0.0 if len([t for t in search.trials if t.state == TrialState.COMPLETE]) >= 2 else 1e6

    monkeypatch.setattr(loop, "seconds_left", seconds_left)
    study["first_trials"] = [{"learning_rate": rate} for rate in (1e-2, 5e-3, 2e-3)]
    result = hpo.run({**study, "budget": {"max_trials": 400, "max_hours": 1}, "pruner": "none"})
    states = [trial.state for trial in result.study.trials]
    assert states.count(TrialState.COMPLETE) == 2
    assert states.count(TrialState.PRUNED) == 4  # those that still waited
    assert len(result.record.confirmed) == 1  # as few as there must be: no hours are left
    assert read_status(open_storage(), "reviews").hours_run > 0
