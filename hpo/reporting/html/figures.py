"""hpo's own figures of a study: learning curves, model comparison, generalization gap, confusion matrix."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from hpo.core.direction import loss_sign
from hpo.core.format import duration, number, parameters, score
from hpo.reporting.html.section import Section, empty_section, shorten
from hpo.storage.records.final_model import Confusion, FinalModel
from hpo.storage.records.study import direction_of
from hpo.storage.records.trial import TrialRecord, points_of

# Readable on white and on near-black.
COLORS = ("#4c8dd6", "#e08a3c", "#4fae74", "#d05a6e", "#9b7fd1", "#3bb3c0", "#c9a227", "#c76bb0", "#8c8c8c", "#7aa33e")
# A page with 300 curves opens instantly; with thousands a browser stalls.
MOST_CURVES = 300
MOST_CLASSES = 30


def study_sections(
    study: optuna.Study,
    complete: Sequence[FrozenTrial],
    metric: str,
    result: FinalModel | None = None,
) -> Iterator[Section]:
    """Yield the four sections; `complete` are the trials with a finite value, `metric` is escaped.

    The last is omitted where the final model was evaluated on test without a confusion matrix: its task has none.
    """
    sign = loss_sign(direction_of(study))
    yield curves_section(study.get_trials(deepcopy=False), metric, sign)
    yield models_section(complete, metric, sign)
    yield gaps_section(complete, metric)
    if result is None or result.confusion or not result.test:
        yield confusion_section(result.confusion if result else None)


def curves_section(trials: Sequence[FrozenTrial], metric: str, sign: float) -> Section:
    """Return the learning curves of the best 300 trials; `sign` times a value is lower for a better one."""
    section = Section(
        "Learning curves",
        "The value of every trial at its rungs, one color per model; pruned trials are faint and dotted. "
        "Click a model in the legend to hide it.",
    )
    drawn = [trial for trial in trials if learning_curve(trial)[0]]
    if not drawn:
        return empty_section(section, "no trial has reported a value yet")
    if len(drawn) > MOST_CURVES:
        drawn.sort(key=lambda trial: sign * learning_curve(trial)[1][-1])
        drawn = sorted(drawn[:MOST_CURVES], key=lambda trial: trial.number)
        section = Section(section.title, f"{section.lead} The best {MOST_CURVES} of {len(trials)} trials are shown.")
    colors, figure = _model_colors(drawn), go.Figure()
    for model, color in colors.items():  # the legend, in full color even if a model's first trial was pruned
        line = {"color": color, "width": 2.5}
        figure.add_scatter(x=[None], y=[None], mode="lines", name=shorten(model), legendgroup=shorten(model), line=line)
    for trial in drawn:
        epochs, values = learning_curve(trial)
        model, pruned = model_of(trial), trial.state == TrialState.PRUNED
        figure.add_scatter(
            x=epochs,
            y=values,
            mode="lines+markers",
            legendgroup=shorten(model),
            showlegend=False,
            opacity=0.4 if pruned else 0.9 if len(drawn) <= 60 else 0.5,
            line={"color": colors[model], "width": 1 if pruned else 1.8, "dash": "dot" if pruned else "solid"},
            marker={"size": 5},
            hovertemplate=f"{_hover(trial)}<br>epoch %{{x:.4g}}: <b>%{{y:.4f}}</b><extra></extra>",
        )
    figure.update_layout(xaxis_title="epoch", yaxis_title=metric, hovermode="closest")
    section.figures.append(figure)
    return section


def learning_curve(trial: FrozenTrial) -> tuple[list[float], list[float]]:
    """Return the epochs and finite values that a trial reported; the rungs where epochs were not recorded."""
    points = [(point["epoch"], point["value"]) for point in points_of(trial) if point.get("value") is not None]
    points = [
        (epoch, value) for epoch, value in points or sorted(trial.intermediate_values.items()) if is_finite(value)
    ]
    return [epoch for epoch, _ in points], [value for _, value in points]


def model_of(trial: FrozenTrial) -> str:
    """Return the label of a trial's model."""
    return str(TrialRecord.of(trial).params.get("model", "model"))


def is_finite(value: float | None) -> bool:
    """Return whether a value is neither None, NaN nor infinite."""
    return value is not None and math.isfinite(value)


def _model_colors(trials: Sequence[FrozenTrial]) -> dict[str, str]:
    models = sorted({model_of(trial) for trial in trials})
    return {model: COLORS[index % len(COLORS)] for index, model in enumerate(models)}


def shown_params(trial: FrozenTrial) -> dict[str, str]:
    """Return a trial's parameters formatted for display, with its frozen layers as `2 of 6`."""
    record = TrialRecord.of(trial)
    params = parameters(record.params)
    if record.frozen_layers:
        params["frozen_layers"] = record.frozen_layers
    return params


def _hover(trial: FrozenTrial) -> str:
    lines = [f"<b>trial {trial.number}</b> ({trial.state.name.lower()})"]
    lines += [f"{shorten(key)}: {shorten(value)}" for key, value in shown_params(trial).items()]
    # plotly substitutes %{…}, also within a name.
    return "<br>".join(lines).replace("%{", "%&#123;")


def models_section(complete: Sequence[FrozenTrial], metric: str, sign: float) -> Section:
    """Return the values of complete trials by model, the best of each marked."""
    section = Section("Models compared", "Every complete trial of each model; a star marks the best.")
    if not complete:
        return empty_section(section, "no trial is complete yet")
    figure, colors = go.Figure(), _model_colors(complete)
    for model, color in colors.items():
        mine = [trial for trial in complete if model_of(trial) == model]
        figure.add_box(
            x=[trial.value for trial in mine],
            name=shorten(model),
            boxpoints="all",
            jitter=0.4,
            pointpos=0,
            fillcolor="rgba(128,128,128,0.08)",
            line={"color": color, "width": 1.2},
            marker={"size": 6, "color": color},
            hoveron="points",
            text=[_hover(trial) for trial in mine],
            hovertemplate="%{text}<br><b>%{x:.4f}</b><extra></extra>",
            showlegend=False,
        )
    best = {
        model: sign * min(sign * (trial.value or 0.0) for trial in complete if model_of(trial) == model)
        for model in colors
    }
    figure.add_scatter(
        x=list(best.values()),
        y=[shorten(model) for model in best],
        mode="markers+text",
        marker={"symbol": "star", "size": 13, "color": "#e0b020", "line": {"width": 0.5, "color": "#555"}},
        text=[score(value) for value in best.values()],
        textposition="top center",
        hoverinfo="skip",
        showlegend=False,
        cliponaxis=False,
    )
    figure.update_layout(xaxis_title=metric, height=140 + 70 * len(colors), yaxis={"autorange": "reversed"})
    section.figures.append(figure)
    return section


def gaps_section(complete: Sequence[FrozenTrial], metric: str) -> Section:
    """Return the metric of complete trials against their generalization gap."""
    section = Section(
        "Training and validation loss",
        "The gap (validation loss minus training loss) of complete trials; far above zero, a trial has overfitted its "
        "training data.",
    )
    records = {trial.number: TrialRecord.of(trial) for trial in complete}
    recorded = [trial for trial in complete if is_finite(records[trial.number].gap)]
    if not recorded:
        return empty_section(section, "no complete trial has recorded its losses")
    figure = go.Figure()
    for model, color in _model_colors(recorded).items():
        mine = [(trial, records[trial.number]) for trial in recorded if model_of(trial) == model]
        figure.add_scatter(
            x=[record.gap for _, record in mine],
            y=[trial.value for trial, _ in mine],
            mode="markers",
            name=shorten(model),
            marker={"size": 8, "color": color, "opacity": 0.85},
            text=[
                f"{_hover(trial)}<br>training loss {number(record.train_loss)}, "
                f"validation loss {number(record.metrics.get('loss'))}, {duration(sum(record.seconds.values()))}"
                for trial, record in mine
            ],
            hovertemplate="%{text}<br>gap %{x:.3f}<extra></extra>",
        )
    figure.add_vline(x=0, line={"width": 1, "dash": "dash", "color": "#888"})
    figure.update_layout(xaxis_title="gap between validation and training loss", yaxis_title=metric, showlegend=True)
    section.figures.append(figure)
    return section


def confusion_section(confusion: Confusion | None) -> Section:
    """Return the confusion matrix on the test split; with over 30 classes, a table of the most confused pairs."""
    section = Section(
        "Confusion matrix", "The final model on the test split: rows are true classes, columns predicted."
    )
    if not confusion:
        return empty_section(
            section, "there is no final model with a test score yet, or its task has no classes to confuse"
        )
    labels, matrix = confusion.labels, confusion.matrix
    if len(labels) > MOST_CLASSES:
        lead = f"A matrix of {len(labels)} classes is not readable; the final model most often confuses these pairs."
        return Section("Most confused classes", lead, rows=confused_pairs(labels, matrix))
    names = [shorten(label, 32) for label in labels]
    shares = [[cell / max(sum(row), 1) for cell in row] for row in matrix]
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            # Indices, not names: two long labels may be equal once abbreviated.
            x=list(range(len(names))),
            y=list(range(len(names))),
            text=matrix,
            texttemplate="%{text}" if len(labels) <= 15 else None,
            customdata=[[[true, predicted] for predicted in names] for true in names],
            hovertemplate="%{customdata[0]} predicted as %{customdata[1]}: %{text} (%{z:.0%})<extra></extra>",
            zmin=0,
            zmax=1,
            colorscale=[[0, "rgba(76,141,214,0)"], [1, "rgba(76,141,214,1)"]],
            showscale=False,
            xgap=1,
            ygap=1,
        )
    )
    ticks = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names, "showgrid": False}
    figure.update_layout(
        xaxis={**ticks, "title": "predicted", "tickangle": -45 if len(labels) > 5 else 0},
        yaxis={**ticks, "title": "true", "autorange": "reversed"},
        height=max(320, 160 + 34 * len(labels)),
    )
    section.figures.append(figure)
    return section


def confused_pairs(
    labels: Sequence[Any], matrix: Sequence[Sequence[int]], most: int = 25
) -> list[tuple[str, str, int]]:
    """Return the `most` largest cells off the diagonal as (true, predicted, count), most frequent first."""
    cells = [
        (str(labels[i]), str(labels[j]), int(cell))
        for i, row in enumerate(matrix)
        for j, cell in enumerate(row)
        if i != j and cell
    ]
    return sorted(cells, key=lambda cell: -cell[2])[:most]
