"""Warm start: copies the finished trials of another study that fit a study's search space."""

import warnings
from collections.abc import Sequence
from datetime import datetime

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from hpo.config.search_space import SearchSpace
from hpo.config.trial_params import TrialParams
from hpo.search.suggest import suggest
from hpo.storage.records.trial import TrialRecord


def copies(source: optuna.Study, space: SearchSpace, models: Sequence[str]) -> list[FrozenTrial]:
    """Return copies of the complete and pruned trials of `source` that `space` can sample, for a new study.

    A copy keeps its values, reports and records, and does not count in the budget. The caller makes sure that values of
    the two studies are comparable.
    """
    finished = source.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    found = [_copy(trial, f"{source.study_name} #{trial.number}", space, models) for trial in finished]
    return [copy for copy in found if copy is not None]


def _copy(trial: FrozenTrial, origin: str, space: SearchSpace, models: Sequence[str]) -> FrozenTrial | None:
    """Return the trial as one of `space`; None if `space` does not contain its configuration."""
    record = TrialRecord.of(trial)
    if not record.is_resolved:
        return None
    recorded = TrialParams(**record.params).active()
    # What the other study fixed, or left at its default, may be searched here.
    fixed = FixedTrial({**recorded, **trial.params})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a value outside its range: `create_trial` refuses it
            params = suggest(fixed, space, models).active()
        copy = optuna.trial.create_trial(
            state=trial.state,
            value=trial.value,
            params=fixed.params,
            distributions=fixed.distributions,
            intermediate_values=trial.intermediate_values,
            **record.copied(origin).attributes(),
        )
    except ValueError:
        return None
    frozen = {"frozen_share"} if params["frozen_share"] is None else {"frozen_share", "frozen_layers"}
    if any(params.get(name) != recorded.get(name) for name in (params.keys() | recorded.keys()) - frozen):
        return None  # fixed to another value here, or not searched here and not at its default
    if trial.duration is not None:
        copy.datetime_complete = datetime.now()
        copy.datetime_start = copy.datetime_complete - trial.duration  # the forecast of the remaining hours reads it
    return copy
