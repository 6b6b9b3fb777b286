"""Transfer from source studies: weighted by how far their ranks agree with the study's own."""

from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from hpo.search.freeze_thaw import FreezeThawSampler
from hpo.search.surrogate.model import fit_surrogate, source_studies
from hpo.storage.records.study import StudyRecord

SPACE: dict[str, BaseDistribution] = {"x": FloatDistribution(1e-4, 1, log=True), "y": FloatDistribution(0, 1)}


def add_trials(study: optuna.Study, loss: Callable[[float], float], count: int = 16) -> None:
    """Add complete trials all over the space; `loss` is of log10(x)."""
    for number in range(count):
        params = {"x": 10.0 ** (-4 * (number + 0.5) / count), "y": (number * 7 % count) / count}
        study.add_trial(create_trial(params=params, distributions=SPACE, value=loss(np.log10(params["x"]))))


def study_with_sources(*losses: Callable[[float], float]) -> optuna.Study:
    """A new study, and a complete source study for each loss."""
    storage = optuna.storages.InMemoryStorage()
    for number, loss in enumerate(losses):
        add_trials(optuna.create_study(study_name=str(number), storage=storage), loss)
    study = optuna.create_study(study_name="new", storage=storage, sampler=FreezeThawSampler(seed=0))
    StudyRecord(source_studies=tuple(map(str, range(len(losses))))).save(study)
    return study


def best_is_low(log_x: float) -> float:
    return abs(log_x + 3.5)


def best_is_high(log_x: float) -> float:
    return abs(log_x + 0.5)


def test_first_suggestions_are_where_a_source_was_good() -> None:
    asked = []
    for known in (True, False):
        study = study_with_sources(*[best_is_low] * known)
        study.ask(SPACE)  # its value is unknown; after it the sampler knows the space
        asked.append([np.log10(study.ask(SPACE).params["x"]) for _ in range(3)])
    informed, uninformed = (np.abs(np.array(log_x) + 3.5).mean() for log_x in asked)
    assert informed < 0.5 < uninformed, asked


def test_misleading_source_soon_has_no_weight() -> None:
    study = study_with_sources(best_is_low, best_is_high)
    assert fit_surrogate(study, []).prior.weights == pytest.approx([0.25, 0.25])
    for count in (4, 16):
        add_trials(study, best_is_high, count)
    misleading, helpful = fit_surrogate(study, study.trials).prior.weights
    assert misleading == 0 and helpful > 0.4


def test_deleted_source_is_ignored() -> None:
    study = study_with_sources(best_is_low)
    optuna.delete_study(study_name="0", storage=study._storage)
    assert source_studies(study) == []
    add_trials(study, best_is_high)
    assert np.log10(study.ask(SPACE).params["x"]) > -2


def test_failed_and_empty_sources_are_harmless() -> None:
    study = study_with_sources()
    failed = optuna.create_study(study_name="failed", storage=study._storage)
    failed.add_trial(create_trial(state=TrialState.FAIL, params={"x": 0.1, "y": 0.5}, distributions=SPACE))
    empty = optuna.create_study(study_name="empty", storage=study._storage)
    StudyRecord(source_studies=("failed", empty.study_name)).save(study)
    add_trials(study, best_is_high)
    assert np.isfinite(fit_surrogate(study, study.trials).mean).all()
