"""Successive halving: which trials are compared, and at which share of their schedules."""

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from hpo.search.halving import HalvingPruner
from hpo.storage.records.trial import INFRASTRUCTURE, RUNGS


def study_of(*curves: tuple[int, dict[int, float]], direction: str = "maximize") -> optuna.Study:
    """A study of pruned trials, each with the length of its own schedule and its reports by step."""
    study = optuna.create_study(direction=direction, pruner=HalvingPruner(min_share=0.25))
    for rungs, reports in curves:
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.PRUNED,
                params={"x": 0.5},
                distributions={"x": FloatDistribution(0, 1)},
                intermediate_values=reports,
                user_attrs={RUNGS: rungs},
            )
        )
    return study


def pruned_at(study: optuna.Study, rungs: int, values: list[float]) -> int | None:
    """Return the step at which a new trial is pruned; None if it completes."""
    trial = study.ask()
    trial.set_user_attr(RUNGS, rungs)
    for step, value in enumerate(values, 1):
        trial.report(value, step)
        if trial.should_prune():
            return step
    return None


def test_trials_are_compared_at_the_same_share_of_their_own_schedules() -> None:
    # After as many rungs (4) the long one is better, at a quarter of each one's schedule it is worse.
    study = study_of((4, {1: 0.5}), (4, {1: 0.4}), (4, {1: 0.3}))
    assert pruned_at(study, 16, [0.1, 0.2, 0.3, 0.35, 0.6]) == 4
    assert pruned_at(study, 16, [0.1, 0.2, 0.3, 0.55, 0.6]) is None


def test_values_are_interpolated_between_reports() -> None:
    study = study_of((8, {1: 0.0, 2: 0.4, 3: 0.8}), (8, {1: 0.0, 2: 0.2, 3: 0.4}), (8, {1: 0.0, 2: 0.1}))
    assert pruned_at(study, 3, [0.5, 0.6, 0.7]) is None  # its first report counts as that at a quarter: 0.4, 0.2, 0.1
    assert pruned_at(study, 3, [0.15, 0.6, 0.7]) == 1


def test_first_three_trials_and_then_the_better_half_survive() -> None:
    study = study_of(direction="minimize")
    for value in (0.5, 0.6, 0.7):
        assert pruned_at(study, 4, [value] * 4) is None
    assert pruned_at(study, 4, [0.65] * 4) == 1
    assert pruned_at(study, 4, [0.55] * 4) is None


def test_diverged_trials_and_failures_of_the_infrastructure_do_not_count() -> None:
    study = study_of((4, {1: float("nan")}), (4, {1: 0.0}), (4, {1: 0.0}))
    failed = study.ask()
    failed.report(0.9, 1)
    failed.set_user_attr(INFRASTRUCTURE, True)
    study.tell(failed, state=TrialState.FAIL)
    assert pruned_at(study, 4, [-0.1, -0.1, -0.1, -0.1]) is None  # with the other two it is the third
    assert pruned_at(study, 4, [float("nan")]) == 1


@pytest.mark.parametrize("given", [{"min_share": 0}, {"min_share": 1}, {"reduction_factor": 1}])
def test_invalid_arguments_raise(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        HalvingPruner(**given)  # type: ignore[arg-type]
