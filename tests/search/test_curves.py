"""Learning curves and the fraction of trials that beat each one."""

import math

import numpy as np
import pytest
from optuna.trial import TrialState, create_trial

from hpo.search.curves import LearningCurve, fraction_better, learning_curve, max_reported_step
from hpo.storage.records.trial import RUNGS


def curve(*losses: float, of: int | None = None) -> LearningCurve:
    return LearningCurve(np.arange(1, len(losses) + 1) / (of or len(losses)), np.array(losses))


def test_curve_ends_at_the_first_value_that_is_not_finite() -> None:
    reports = {1: 0.5, 2: 0.7, 3: math.nan, 4: 0.9}
    found = learning_curve(create_trial(state=TrialState.PRUNED, intermediate_values=reports), -1.0, 8)
    assert found is not None and found.progress == 0.25
    assert found.losses == pytest.approx([-0.5, -0.7])
    assert learning_curve(create_trial(state=TrialState.FAIL, intermediate_values={1: math.nan}), 1.0, 8) is None
    assert learning_curve(create_trial(state=TrialState.FAIL), 1.0, 8) is None


def test_complete_trial_ends_at_its_value_even_if_it_stopped_early() -> None:
    stopped_early = create_trial(value=0.3, intermediate_values={1: 0.5, 2: 0.4}, user_attrs={RUNGS: 8})
    found = learning_curve(stopped_early, 1.0, 8)
    assert found is not None and found.progress == 1.0 and found.losses[-1] == 0.3
    silent = learning_curve(create_trial(value=0.3), 1.0, 8)
    assert silent is not None and (silent.progress, silent.losses.tolist()) == (1.0, [0.3])


def test_schedule_is_the_trials_own_or_the_longest_reported() -> None:
    trials = [
        create_trial(state=TrialState.PRUNED, intermediate_values={2: 0.5}, user_attrs={RUNGS: 4}),
        create_trial(state=TrialState.PRUNED, intermediate_values={1: 0.5, 10: 0.4}),
    ]
    assert max_reported_step(trials) == 10 and max_reported_step([]) == 1
    assert [learning_curve(t, 1.0, 20).progress for t in trials] == [0.5, 0.5]  # type: ignore[union-attr]


def test_fraction_better_compares_at_the_last_common_share() -> None:
    curves = [curve(0.9, 0.1), curve(0.8, 0.2), curve(0.85, of=2), None]
    # The third ended at half of its schedule, where it is second; the others are compared at their ends.
    assert fraction_better(curves) == pytest.approx([0.5 / 3 + 0.5 / 3, 1 / 3, 1 / 3, 1.0])


def test_equal_curves_share_their_rank() -> None:
    assert fraction_better([curve(0.5)] * 4) == pytest.approx([0.375] * 4)
    assert fraction_better([None, None]).tolist() == [1.0, 1.0]
