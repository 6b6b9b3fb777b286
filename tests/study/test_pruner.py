"""hpo's pruner: whom it compares with, what it stops, and that nothing it meets makes it fail."""

import math

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.study.pruner import ForecastPruner
from hpo.study.rules import RUNGS


def trial(curve: list[float], state: TrialState, rungs: int = 10) -> FrozenTrial:
    return create_trial(
        state=state,
        value=curve[-1] if state == TrialState.COMPLETE else None,
        intermediate_values=dict(enumerate(curve, start=1)),
        user_attrs={RUNGS: rungs},
    )


def falling(end: float, steps: int, of: int = 10) -> list[float]:
    """A loss on its way from 1 to `end` in `of` steps, as far as step `steps`."""
    return [end + (1 - end) * 0.6**step for step in range(1, steps)] + [end + (1 - end) * 0.6**steps * (steps < of)]


def decide(others: list[FrozenTrial], curve: list[float], direction: str = "minimize", rungs: int = 10) -> bool:
    study = optuna.create_study(direction=direction, pruner=ForecastPruner())
    study.add_trials(others)
    asking = study.ask()
    asking.set_user_attr(RUNGS, rungs)
    for step, value in enumerate(curve, start=1):
        asking.report(value, step)
    return asking.should_prune()


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.RUNNING, TrialState.PRUNED])
def test_it_works_from_the_fourth_trial_on_against_trials_of_any_state(state: TrialState) -> None:
    ends = (0.1, 0.15, 0.2)
    steps = 10 if state == TrialState.COMPLETE else 4
    others = [trial(falling(end, steps), state) for end in ends]
    assert decide(others, falling(0.9, 3))
    assert not decide(others, falling(0.02, 3))
    assert not decide(others[:2], falling(0.9, 3)), "two others are too few"


def test_maximizing_is_minimizing_upside_down() -> None:
    others = [trial([-v for v in falling(end, 10)], TrialState.COMPLETE) for end in (0.1, 0.2, 0.3)]
    assert decide(others, [-v for v in falling(0.9, 3)], "maximize")
    assert not decide(others, [-v for v in falling(0.05, 3)], "maximize")


def test_a_trial_is_compared_at_its_share_of_its_own_schedule() -> None:
    others = [trial(falling(end, 10), TrialState.COMPLETE) for end in (0.2, 0.25, 0.3)]
    curve = [value for value in falling(0.15, 2) for _ in range(3)]  # falls as theirs do, three times as slowly
    assert not decide(others, curve, rungs=30)
    assert decide(others, curve, rungs=7), "just before its end the same curve is a bad one"


def test_nothing_stops_a_trial_that_is_far_ahead_or_at_its_end() -> None:
    others = [trial(falling(end, 2), TrialState.RUNNING) for end in (0.1, 0.2, 0.3)]
    assert decide(others, falling(0.9, 4)), "seen where the others are"
    assert not decide(others, falling(0.9, 5)), "that says too little of where it is"
    done = [trial(falling(end, 10), TrialState.COMPLETE) for end in (0.1, 0.2, 0.3)]
    assert not decide(done, falling(0.9, 10))


def test_odd_curves_are_no_trouble() -> None:
    odd = [
        trial([0.5] * 10, TrialState.COMPLETE),
        trial([0.5] * 10, TrialState.COMPLETE),
        trial([0.5, 1e30], TrialState.PRUNED),
        trial([0.5, math.nan, 0.4], TrialState.FAIL),
        trial([math.nan], TrialState.FAIL),
        trial([], TrialState.RUNNING),
        create_trial(value=0.5),  # reported nothing
    ]
    for curve in ([0.5], [0.5, 0.5], [1e30], [0.5, math.nan], [math.nan]):
        assert decide(odd, curve) in (True, False)
    assert not decide(odd, [0.5, 0.5]), "as good as all others"


def test_without_recorded_schedules_the_furthest_step_is_the_end() -> None:
    study = optuna.create_study(pruner=ForecastPruner())
    for end in (0.1, 0.2, 0.3):
        asked = study.ask()
        for step, value in enumerate(falling(end, 10), start=1):
            asked.report(value, step)
        study.tell(asked, end)
    bad = study.ask()
    bad.report(falling(0.9, 1)[0], 1)
    bad.report(falling(0.9, 2)[1], 2)
    assert bad.should_prune()


@pytest.mark.parametrize(("given", "told"), [({"bar": 0}, "bar is 0"), ({"min_trials": 1}, "min_trials is 1")])
def test_arguments_that_mean_nothing_are_told(given: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ForecastPruner(**given)
