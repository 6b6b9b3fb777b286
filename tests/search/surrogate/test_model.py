"""Predicted final scores of trials."""

import math
from typing import Any

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.search.surrogate.model import MAX_OBSERVATIONS, MEDIAN_SCORE, SurrogateModel
from hpo.storage.records.trial import INFRASTRUCTURE, RUNGS


def trial(curve: list[float], state: TrialState, x: float, **attributes: Any) -> FrozenTrial:
    return create_trial(
        state=state,
        value=curve[-1] if state == TrialState.COMPLETE else None,
        params={"x": x},
        distributions={"x": FloatDistribution(0, 1)},
        intermediate_values=dict(enumerate(curve, start=1)),
        user_attrs={RUNGS: 10, **attributes},
    )


def falling(end: float, steps: int) -> list[float]:
    """A loss that falls from 1 to `end` in 10 steps, up to step `steps`."""
    return [end + (1 - end) * 0.6**step * (step < 10) for step in range(1, steps + 1)]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_predictions_follow_the_learning_curves_of_trials_in_any_state(sign: float) -> None:
    states = [TrialState.COMPLETE, TrialState.RUNNING, TrialState.PRUNED, TrialState.WAITING]
    ends = [0.1, 0.3, 0.5, 0.7]
    for order in range(4):
        shifted = states[order:] + states[:order]
        trials = [
            trial([sign * v for v in falling(end, 10 if state == TrialState.COMPLETE else 4)], state, end)
            for end, state in zip(ends, shifted, strict=True)
        ]
        assert np.argsort(SurrogateModel(trials, sign).mean).tolist() == [0, 1, 2, 3]


def test_predictions_generalize_to_configurations_without_a_report() -> None:
    trials = [trial([x] * 10, TrialState.COMPLETE, x) for x in np.linspace(0, 1, 12)]
    model = SurrogateModel([*trials, trial([], TrialState.RUNNING, 0.05)], 1.0)
    assert model.mean[12] < -0.5
    mean, variance = model.predict(np.array([[0.02], [0.98]]))
    assert mean[0] < -0.5 < 0.5 < mean[1] and (variance > 0).all()


def test_uncertainty_shrinks_during_training() -> None:
    model = SurrogateModel([trial(falling(end, 10), TrialState.COMPLETE, end) for end in (0.1, 0.2, 0.3, 0.4)], 1.0)
    noise = model.noise_at(np.array([0.1, 0.5, 1.0]))
    assert noise[0] > noise[1] > noise[2] > 0


def test_failures_count_as_the_worst_unless_the_infrastructure_failed() -> None:
    good = [trial([x] * 10, TrialState.COMPLETE, x / 2) for x in (0.1, 0.2, 0.3, 0.4)]
    diverged = SurrogateModel([*good, trial([], TrialState.FAIL, 0.9)], 1.0)
    assert diverged.count == 5 and diverged.mean.argmax() == 4
    assert SurrogateModel([*good, trial([], TrialState.FAIL, 0.9, **{INFRASTRUCTURE: True})], 1.0).count == 4


def test_best_score_is_that_of_complete_trials_or_of_predictions_for_running_ones() -> None:
    assert SurrogateModel([], 1.0).best_score() == MEDIAN_SCORE
    pruned = [trial(falling(end, 4), TrialState.PRUNED, end) for end in (0.2, 0.3, 0.4)]
    assert SurrogateModel(pruned, 1.0).best_score() == MEDIAN_SCORE
    running = SurrogateModel([*pruned, trial(falling(0.1, 4), TrialState.RUNNING, 0.1)], 1.0)
    assert running.best_score() == running.mean[3] < 0


def test_irregular_curves_give_finite_predictions() -> None:
    trials = [
        trial([0.5] * 10, TrialState.COMPLETE, 0.1),
        trial([0.5] * 10, TrialState.COMPLETE, 0.1),
        trial([0.5, 1e30], TrialState.PRUNED, 0.2),
        trial([0.5, math.nan, 0.4], TrialState.FAIL, 0.3),
        trial([math.nan], TrialState.FAIL, 0.4),
        trial([math.nan], TrialState.RUNNING, 0.5),
        trial([], TrialState.RUNNING, 0.6),
        create_trial(value=0.5),  # no report and no parameter
    ]
    assert np.isfinite(SurrogateModel(trials, 1.0).mean).all()


def test_large_studies_are_fitted_to_some_of_their_trials_and_predict_all() -> None:
    xs = np.random.default_rng(0).permutation(MAX_OBSERVATIONS + 60) / (MAX_OBSERVATIONS + 60)
    model = SurrogateModel([trial([x] * 10, TrialState.COMPLETE, x) for x in xs], 1.0)
    assert len(model.process.points) == MAX_OBSERVATIONS
    assert np.corrcoef(model.mean, xs)[0, 1] > 0.9
