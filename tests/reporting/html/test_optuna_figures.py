"""Optuna's figures: from an escaped copy of the study in memory."""

import optuna
import pytest

from hpo.reporting.html.optuna_figures import escaped_copy, importances_section, slices_section
from tests.reporting.studies import make_study


def test_copy_is_escaped_and_has_no_attributes() -> None:
    study = make_study()
    copy = escaped_copy(study, study.get_trials())
    assert [trial.value for trial in copy.trials] == [trial.value for trial in study.trials]
    assert all("<" not in trial.params["model"] and trial.user_attrs == {} for trial in copy.trials)


def test_copy_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    study = make_study()
    optuna.logging.enable_propagation()
    caplog.clear()
    try:
        escaped_copy(study, study.get_trials())
    finally:
        optuna.logging.disable_propagation()
    assert not caplog.records


def test_parameters_that_never_vary_are_not_drawn() -> None:
    study = optuna.create_study()
    space = {"x": optuna.distributions.FloatDistribution(0, 1), "y": optuna.distributions.FloatDistribution(0, 1)}
    for x in (0.1, 0.5, 0.9):
        study.add_trial(optuna.create_trial(value=x, params={"x": x, "y": 0.5}, distributions=space))
    (figure,) = slices_section(study, study.trials, "loss").figures
    assert figure.layout.xaxis.title.text == "x" and len(figure.data) == 1
    assert "two complete trials" in importances_section(study, study.trials[:1]).skipped
