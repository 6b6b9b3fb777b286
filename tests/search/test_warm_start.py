"""Trials of another study: those that fit the new search space are copied once, outside the budget."""

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from hpo.config.space_parser import parse_search_space
from hpo.config.trial_params import TrialParams
from hpo.search.suggest import suggest
from hpo.search.warm_start import copies
from hpo.storage.lease import Worker
from hpo.storage.records.trial import COPIED_FROM, TrialRecord
from hpo.storage.status import read_status
from hpo.storage.storage import Storage

OLD = parse_search_space(
    {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "batch_size": 16, "frozen_layers": {"share": [0, 1]}}
)
SAMPLED = {"model": "bert", "learning_rate": 1e-3, "frozen_share": 0.4}


def finished(sampled: dict[str, Any], state: TrialState = TrialState.COMPLETE, **recorded: Any) -> Any:
    """A finished trial of the old study."""
    fixed = optuna.trial.FixedTrial(sampled)
    params = suggest(fixed, OLD, ["bert"])
    plain = {**params.model_dump(), "frozen_layers": params.resolve_frozen_layers(6), "frozen_share": None}
    return create_trial(
        state=state,
        value=0.9 if state == TrialState.COMPLETE else None,
        params=fixed.params,
        distributions=fixed.distributions,
        intermediate_values={1: 0.8, 2: 0.9},
        **TrialRecord(seed=0, worker="5", attempt=2, origin="first trial", params={**plain, **recorded}).attributes(),
    )


@pytest.fixture
def old(storage: Storage) -> optuna.Study:
    study = optuna.create_study(study_name="old", storage=storage, direction="maximize")
    study.add_trial(finished(SAMPLED))
    study.add_trial(finished({**SAMPLED, "learning_rate": 5e-3}, TrialState.PRUNED))
    study.add_trial(finished({**SAMPLED, "learning_rate": 2e-4}))
    return study


@pytest.mark.parametrize(
    ("changed", "copied"),
    [
        ({}, [0, 1, 2]),
        ({"learning_rate": {"low": 1e-6, "high": 1.0, "log": True}}, [0, 1, 2]),  # wider
        ({"learning_rate": {"low": 5e-4, "high": 1.0, "log": True}}, [0, 1]),  # narrower at one end
        ({"batch_size": [16, 32]}, [0, 1, 2]),  # fixed before, searched now
        ({"batch_size": 32}, []),
        ({"weight_decay": {"low": 0.0, "high": 0.1}}, [0, 1, 2]),  # at its default before
        ({"weight_decay": 0.1}, []),
        ({"frozen_layers": 2}, [0, 1, 2]),  # 0.4 of 6 layers
        ({"frozen_layers": 3}, []),
    ],
)
def test_trials_in_the_new_search_space_are_copied(
    changed: dict[str, Any], copied: list[int], old: optuna.Study, study: optuna.Study
) -> None:
    written = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "batch_size": 16}
    space = parse_search_space({**written, "frozen_layers": {"share": [0, 1]}, **changed})
    study.add_trials(copies(old, space, ["bert", "roberta"]))
    assert [trial.user_attrs[COPIED_FROM] for trial in study.trials] == [f"old #{number}" for number in copied]
    for copy, number in zip(study.trials, copied, strict=True):
        source = old.trials[number]
        assert (copy.state, copy.value, copy.intermediate_values) == (
            source.state,
            source.value,
            source.intermediate_values,
        )
        assert TrialRecord.of(copy).params == TrialRecord.of(source).params and "worker" not in copy.user_attrs
        assert copy.params.keys() >= {"model", "learning_rate"}
    assert copies(old, space, ["roberta"]) == []


def test_copies_do_not_count_in_the_budget(old: optuna.Study, study: optuna.Study, storage: Storage) -> None:
    study.add_trials(copies(old, OLD, ["bert", "roberta"]))
    worker = Worker(storage, study, "cpu")
    numbers = []
    while (trial := worker.claim(study)) is not None:
        params = suggest(trial, OLD, ["bert", "roberta"])
        assert isinstance(params, TrialParams)
        worker.finish(study, trial, TrialState.COMPLETE, 0.5)
        numbers.append(trial.number)
    worker.close()
    assert numbers == list(range(3, 13))  # the budget is 10
    status = read_status(storage, "study")
    assert status.max_trials == sum(status.counts.values()) == 13
    assert status.best_trial == 0
