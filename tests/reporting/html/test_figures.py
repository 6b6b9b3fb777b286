"""hpo's own figures of a study."""

import optuna

from hpo.reporting.html.figures import (
    MOST_CURVES,
    confused_pairs,
    confusion_section,
    curves_section,
    learning_curve,
    models_section,
)
from hpo.storage.records.final_model import Confusion
from tests.reporting.studies import MODELS, make_study


def test_confusion_of_many_classes_is_a_table() -> None:
    labels = [f"l{number}" for number in range(31)]
    matrix = [[0] * 31 for _ in labels]
    matrix[2][5], matrix[3][3], matrix[7][1] = 9, 50, 4
    assert confused_pairs(labels, matrix) == [("l2", "l5", 9), ("l7", "l1", 4)]
    section = confusion_section(Confusion(labels=labels, matrix=matrix))
    assert section.figures == [] and section.rows[0] == ("l2", "l5", 9)
    assert len(confusion_section(Confusion(labels=labels[:30], matrix=[row[:30] for row in matrix[:30]])).figures) == 1


def test_learning_curve_has_finite_values_only() -> None:
    trial = optuna.trial.create_trial(value=0.5, intermediate_values={1: 0.1, 2: float("nan"), 3: 0.5})
    assert learning_curve(trial) == ([1, 3], [0.1, 0.5])


def test_only_the_best_curves_are_drawn() -> None:
    trials = [
        optuna.trial.create_trial(value=float(number), intermediate_values={1: float(number)})
        for number in range(MOST_CURVES + 5)
    ]
    section = curves_section(trials, "loss", 1.0)
    drawn = [trace.y[0] for trace in section.figures[0].data if trace.y[0] is not None]
    assert sorted(drawn) == list(range(MOST_CURVES)) and "best 300 of 305" in section.lead


def test_best_of_each_model_is_marked() -> None:
    complete = make_study().get_trials(states=[optuna.trial.TrialState.COMPLETE])
    (figure,) = models_section(complete, "accuracy", -1.0).figures
    models = {trial.params["model"] for trial in complete}
    best = [max(t.value or 0.0 for t in complete if t.params["model"] == name) for name in sorted(models)]
    assert list(figure.data[-1].x) == best and models <= set(MODELS)
