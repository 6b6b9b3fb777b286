"""The figures of a study's report one by one, as plotly figures for a notebook.

Each function raises `StudyError` where there is nothing to draw yet.
"""

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from hpo.core.direction import loss_sign
from hpo.errors import StudyError
from hpo.reporting.html.figures import confusion_section, curves_section, gaps_section, is_finite, models_section
from hpo.reporting.html.optuna_figures import (
    escaped_copy,
    history_section,
    importances_section,
    parallel_section,
    slices_section,
)
from hpo.reporting.html.section import Section, shorten
from hpo.storage.records.study import StudyRecord, direction_of


def history(study: optuna.Study) -> go.Figure:
    """Draw the value of each trial, and the best value so far."""
    return _figure(history_section(_escaped(study), _complete(study), _metric(study)))


def curves(study: optuna.Study) -> go.Figure:
    """Draw the learning curve of each trial, one color per model."""
    return _figure(curves_section(study.get_trials(deepcopy=False), _metric(study), loss_sign(direction_of(study))))


def importances(study: optuna.Study) -> go.Figure:
    """Draw how much each parameter explains of the trials' values."""
    return _figure(importances_section(_escaped(study), _complete(study)))


def models(study: optuna.Study) -> go.Figure:
    """Draw the values of each model's complete trials."""
    return _figure(models_section(_complete(study), _metric(study), loss_sign(direction_of(study))))


def gaps(study: optuna.Study) -> go.Figure:
    """Draw each trial's value against the gap between its validation and training loss."""
    return _figure(gaps_section(_complete(study), _metric(study)))


def slices(study: optuna.Study) -> go.Figure:
    """Draw the trials' values against each parameter."""
    return _figure(slices_section(_escaped(study), _complete(study), _metric(study)))


def parallel(study: optuna.Study) -> go.Figure:
    """Draw each trial as a line through its parameters and its value."""
    return _figure(parallel_section(_escaped(study), _complete(study), _metric(study)))


def confusion(study: optuna.Study) -> go.Figure:
    """Draw the confusion matrix of the final model on the test split."""
    result = StudyRecord.of(study).result
    return _figure(confusion_section(result.confusion if result else None))


def _complete(study: optuna.Study) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if is_finite(trial.value)]


def _escaped(study: optuna.Study) -> optuna.Study:
    return escaped_copy(study, study.get_trials(deepcopy=False))


def _metric(study: optuna.Study) -> str:
    return shorten(StudyRecord.of(study).metric)


def _figure(section: Section) -> go.Figure:
    """Return a section's first figure; raise `StudyError` with the reason where it has none."""
    if section.rows:
        raise StudyError(f"{section.title}: {section.lead} They are in `record.confusion`.")
    if not section.figures:
        raise StudyError(f"{section.title}: {section.skipped}")
    return section.figures[0]
