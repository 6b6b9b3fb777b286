"""Evidence of other studies: what carries over to another space, and that it counts as far as ranks agree."""

from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from hpo.search.freeze_thaw import FreezeThawSampler
from hpo.search.surrogate.acquisition import outlook_of, sources_of
from hpo.search.surrogate.space import Region
from hpo.search.surrogate.transfer import SOURCE_STUDIES

SPACE: dict[str, BaseDistribution] = {"x": FloatDistribution(1e-4, 1, log=True), "y": FloatDistribution(0, 1)}


def add(study: optuna.Study, loss: Callable[[float], float], count: int = 16) -> None:
    """Finished trials all over the space; `loss` is of log10(x)."""
    for number in range(count):
        params = {"x": 10.0 ** (-4 * (number + 0.5) / count), "y": (number * 7 % count) / count}
        study.add_trial(create_trial(params=params, distributions=SPACE, value=loss(np.log10(params["x"]))))


def study_after(*losses: Callable[[float], float]) -> optuna.Study:
    """A new study, with a finished one for each loss as its evidence."""
    storage = optuna.storages.InMemoryStorage()
    for number, loss in enumerate(losses):
        add(optuna.create_study(study_name=str(number), storage=storage), loss)
    study = optuna.create_study(study_name="new", storage=storage, sampler=FreezeThawSampler(seed=0))
    study.set_user_attr(SOURCE_STUDIES, [str(number) for number in range(len(losses))])
    return study


def best_is_low(log_x: float) -> float:
    return abs(log_x + 3.5)


def best_is_high(log_x: float) -> float:
    return abs(log_x + 0.5)


def test_a_study_begins_where_another_was_good() -> None:
    asked = []
    for known in (True, False):
        study = study_after(*[best_is_low] * known)
        study.ask(SPACE)  # its values are not known yet; after it the sampler knows the space
        asked.append([np.log10(study.ask(SPACE).params["x"]) for _ in range(3)])
    informed, blind = (np.abs(np.array(places) + 3.5).mean() for places in asked)
    assert informed < 0.5 < blind, asked


def test_evidence_that_misleads_soon_counts_nothing() -> None:
    study = study_after(best_is_low, best_is_high)
    assert outlook_of(study, []).evidence.weights == pytest.approx([0.25, 0.25])
    for count in (4, 16):
        add(study, best_is_high, count)
    misleading, helpful = outlook_of(study, study.trials).evidence.weights
    assert misleading == 0 and helpful > 0.4


def test_evidence_that_was_deleted_is_done_without() -> None:
    study = study_after(best_is_low)
    optuna.delete_study(study_name="0", storage=study._storage)
    assert sources_of(study) == []
    add(study, best_is_high)
    assert np.log10(study.ask(SPACE).params["x"]) > -2


def test_units_of_another_space() -> None:
    new = {
        "rate": FloatDistribution(0.01, 1, log=True),
        "share": FloatDistribution(0, 1),
        "model": CategoricalDistribution(["a", "b", "c"]),
        "size": IntDistribution(1, 9),
    }
    old = {
        "rate": FloatDistribution(0.1, 10, log=True),
        "size": CategoricalDistribution([1, 9]),  # another kind of parameter
        "model": CategoricalDistribution(["b", "c"]),
        "gone": FloatDistribution(0, 1),
        "share": FloatDistribution(1e-4, 1, log=True),
    }
    params = {"rate": 0.1, "share": 0.01, "model": "c", "size": 5}
    here = Region([create_trial(params=params, distributions=new, value=0.0)])
    there = {"rate": 1.0, "size": 1, "model": "b", "gone": 0.5, "share": 1.0}
    other = Region([create_trial(params=there, distributions=old, value=0.0)])
    units = np.vstack([here.units, here.units])
    units[1, list(here.space).index("model")] = 0.1  # a: not known there
    found = here.units_in(other, units)
    assert found[0] == pytest.approx([0.0, np.nan, 0.75, np.nan, 0.5], nan_ok=True)
    assert found[1] == pytest.approx([0.0, np.nan, np.nan, np.nan, 0.5], nan_ok=True)


def test_a_failed_study_is_no_evidence_of_anything() -> None:
    study = study_after()
    failed = optuna.create_study(study_name="failed", storage=study._storage)
    failed.add_trial(create_trial(state=TrialState.FAIL, params={"x": 0.1, "y": 0.5}, distributions=SPACE))
    empty = optuna.create_study(study_name="empty", storage=study._storage)
    study.set_user_attr(SOURCE_STUDIES, ["failed", empty.study_name])
    add(study, best_is_high)
    assert np.isfinite(outlook_of(study, study.trials).mean).all()
