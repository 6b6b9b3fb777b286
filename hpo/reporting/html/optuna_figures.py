"""Optuna's own figures of a study: history, importances, slices, parallel coordinates."""

import html
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial
from plotly.colors import sample_colorscale

from hpo.core.direction import higher_is_better
from hpo.reporting.html.section import Section, empty_section
from hpo.storage.records.study import direction_of

MOST_SLICES_IN_A_ROW = 3
# Optuna's own scale runs from near-white to near-black: one end is lost on a white page, the other on a dark one.
FAINT, STRONG, BEST = "#a9b8ca", "#2f6fb7", "#e0542f"


def optuna_sections(study: optuna.Study, complete: Sequence[FrozenTrial], metric: str) -> Iterator[Section]:
    """Yield the four sections; `complete` are the trials with a finite value, `metric` is escaped."""
    shown = escaped_copy(study, study.get_trials(deepcopy=False))
    yield history_section(shown, complete, metric)
    yield importances_section(shown, complete)
    yield slices_section(shown, complete, metric)
    yield parallel_section(shown, complete, metric)


def escaped_copy(study: optuna.Study, trials: Sequence[FrozenTrial]) -> optuna.Study:
    """Return a copy of the study in memory, with texts escaped and without attributes, for Optuna's figures.

    It is read once from the database, not by each figure.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else a notebook shows that a study was created
    try:
        copy = optuna.create_study(
            direction=study.direction, study_name=study.study_name, storage=optuna.storages.InMemoryStorage()
        )
    finally:
        optuna.logging.set_verbosity(verbosity)
    for trial in trials:
        copy.add_trial(
            FrozenTrial(
                number=trial.number,
                trial_id=-1,
                state=trial.state,
                value=trial.value,
                datetime_start=trial.datetime_start,
                datetime_complete=trial.datetime_complete,
                params={key: _escaped(value) for key, value in trial.params.items()},
                distributions={key: _escaped_distribution(dist) for key, dist in trial.distributions.items()},
                user_attrs={},
                system_attrs={},
                intermediate_values=trial.intermediate_values,
            )
        )
    return copy


def _escaped(value: Any) -> Any:
    # Not abbreviated: two choices must remain different.
    return html.escape(value, quote=False) if isinstance(value, str) else value


def _escaped_distribution(dist: Any) -> Any:
    if isinstance(dist, CategoricalDistribution):
        return CategoricalDistribution([_escaped(choice) for choice in dist.choices])
    return dist


def _varying(complete: Sequence[FrozenTrial]) -> list[str]:
    """Return the sampled parameters with at least two values among complete trials, in order of the search space."""
    names = dict.fromkeys(name for trial in complete for name in trial.params)
    return [name for name in names if len({str(trial.params.get(name)) for trial in complete}) > 1]


def history_section(study: optuna.Study, complete: Sequence[FrozenTrial], metric: str) -> Section:
    """Return Optuna's history of the values; `study` is an `escaped_copy`."""
    section = Section(
        "Optimization history",
        "Each complete trial in the order of its start, and the best so far.",
    )
    if not complete:
        return empty_section(section, "no trial is complete yet")
    section.figures.append(optuna.visualization.plot_optimization_history(study, target_name=metric))
    return section


def importances_section(study: optuna.Study, complete: Sequence[FrozenTrial]) -> Section:
    """Return the importances of the sampled parameters by PED-ANOVA; `study` is an `escaped_copy`."""
    section = Section(
        "Parameter importances",
        "How much each parameter decides whether a trial is among the best (PED-ANOVA, Watanabe et al., 2023).",
    )
    names = _varying(complete)
    if len(complete) < 2 or not names:
        return empty_section(section, "at least two complete trials that differ in a parameter are needed")
    with warnings.catch_warnings():
        # Optuna warns for each parameter; the section states the reason once.
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(study, params=names)
        if len(names) > 1 and max(found.values()) - min(found.values()) < 1e-9:
            return empty_section(section, f"the {len(complete)} complete trials are too few to rank the parameters")
        figure = optuna.visualization.plot_param_importances(study, params=names)
    figure.update_layout(yaxis_title=None, height=130 + 40 * len(names))
    section.figures.append(figure)
    return section


def slices_section(study: optuna.Study, complete: Sequence[FrozenTrial], metric: str) -> Section:
    """Return slice plots, at most three parameters per figure; `study` is an `escaped_copy`."""
    section = Section("Slices", "The value of each complete trial against each parameter; later trials are bluer.")
    names = _varying(complete)
    if not names:
        return empty_section(section, "at least two complete trials that differ in a parameter are needed")
    rows = math.ceil(len(names) / MOST_SLICES_IN_A_ROW)
    for row in range(rows):
        chunk = names[len(names) * row // rows : len(names) * (row + 1) // rows]
        figure = optuna.visualization.plot_slice(study, params=chunk, target_name=metric)
        figure.update_traces(marker={"colorscale": [[0, FAINT], [1, STRONG]], "size": 8, "line": {"width": 0}})
        section.figures.append(figure)
    return section


def parallel_section(study: optuna.Study, complete: Sequence[FrozenTrial], metric: str) -> Section:
    """Return the parallel coordinates of complete trials, the best in red; `study` is an `escaped_copy`."""
    section = Section("Parallel coordinates", "One line per complete trial, through all of its parameters.")
    names = _varying(complete)
    if not names:
        return empty_section(section, "at least two complete trials that differ in a parameter are needed")
    figure = optuna.visualization.plot_parallel_coordinate(study, params=names, target_name=metric)
    if higher_is_better(direction_of(study)):
        scale = [[0, FAINT], [0.7, STRONG], [1, BEST]]
    else:
        scale = [[0, BEST], [0.3, STRONG], [1, FAINT]]
    figure.update_annotations(font_color=None)  # the page's own, light or dark
    for trace in figure.data:
        if trace.mode == "lines" and trace.y[0] is not None:  # the first axis is the metric, from 0 to 1
            trace.opacity = 0.75
            trace.line.color = sample_colorscale(scale, [min(max(trace.y[0], 0.0), 1.0)])[0]
        elif trace.mode == "markers":
            trace.marker.update(colorscale=scale, reversescale=False)
    section.figures.append(figure)
    return section
