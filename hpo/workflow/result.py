"""The result of a finished study: the winner, its scores, and the final model, ready to use."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from hpo.core.format import NOTHING, interval, parameters, score
from hpo.core.paths import folders_of
from hpo.errors import StudyError
from hpo.reporting.console import console
from hpo.storage.records.final_model import FILE_NAME, FinalModel
from hpo.storage.records.study import StudyRecord
from hpo.storage.storage import open_storage
from hpo.workflow.studies import leaderboard, open_study

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from hpo.workflow.predict import Predictor

SHOWN_TRIALS = 5  # of the leaderboard, in a notebook's cell


@dataclass(frozen=True)
class Winner:
    """The configuration that won: its trial in the search, its parameters, its scores on fresh seeds."""

    trial: int
    params: dict[str, Any]
    scores: tuple[float, ...]
    seeds: tuple[int, ...]
    mean: float


@dataclass(frozen=True, repr=False)
class Result:
    """A finished study. `study` is the plain `optuna.Study`; `record` is all that was recorded of the outcome."""

    study: optuna.Study
    record: FinalModel

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.study_name

    @property
    def winner(self) -> Winner:
        """The winner, chosen on validation and confirmed on fresh seeds."""
        found = self.record.winner
        return Winner(found.trial, found.params, tuple(found.values.values()), tuple(found.values), found.mean)

    @property
    def params(self) -> dict[str, Any]:
        """The winner's resolved parameters, as `TrialParams` names them."""
        return self.winner.params

    @property
    def model_dir(self) -> Path:
        """The folder of the final model, which `from_pretrained` and `pipeline` load."""
        return self.record.model_dir

    @property
    def metrics(self) -> dict[str, float]:
        """The final model's scores on the test split; empty where there is none."""
        return dict(self.record.test.metrics) if self.record.test else {}

    def load_model(self) -> Any:
        """Return the final model as its plain `transformers` class, on the CPU."""
        from hpo.workflow.predict import Predictor

        return Predictor(self.model_dir, device="cpu").model

    def predict(self, data: Any) -> list[dict[str, Any]]:
        """Predict with the final model: one dictionary per input. See `Predictor.predict` for what it accepts."""
        return self._predictor.predict(data)

    def predict_proba(self, data: Any) -> "pd.DataFrame":
        """Return the probability of each class, one row per input. See `Predictor.predict_proba`."""
        return self._predictor.predict_proba(data)

    def evaluate(self, data: Any) -> dict[str, float]:
        """Return the final model's metrics on labeled data: a path or a table. See `Predictor.evaluate`."""
        return self._predictor.evaluate(data)

    def leaderboard(self) -> "pd.DataFrame":
        """Return the trials of the search as a table, best first: confirmed ones, then the others by their value.

        The index is the trial's number. Columns: state, value, confirmed (mean on fresh seeds), std, seeds, seconds,
        and a column for each parameter.
        """
        return leaderboard(self.study, self.record)

    def plot_history(self) -> "go.Figure":
        """Draw the value of each trial, and the best value so far."""
        return self._plot("history")

    def plot_curves(self) -> "go.Figure":
        """Draw the learning curve of each trial, one color per model."""
        return self._plot("curves")

    def plot_importances(self) -> "go.Figure":
        """Draw how much each parameter explains of the trials' values."""
        return self._plot("importances")

    def plot_models(self) -> "go.Figure":
        """Draw the values of each model's complete trials."""
        return self._plot("models")

    def plot_gaps(self) -> "go.Figure":
        """Draw each trial's value against the gap between its validation and training loss."""
        return self._plot("gaps")

    def plot_slices(self) -> "go.Figure":
        """Draw the trials' values against each parameter."""
        return self._plot("slices")

    def plot_parallel(self) -> "go.Figure":
        """Draw each trial as a line through its parameters and its value."""
        return self._plot("parallel")

    def plot_confusion(self) -> "go.Figure":
        """Draw the confusion matrix of the final model on the test split."""
        return self._plot("confusion")

    def _plot(self, name: str) -> "go.Figure":
        from hpo.reporting import plots

        return getattr(plots, name)(self.study)

    def __repr__(self) -> str:
        from hpo.reporting.console.tables import key_value_table

        return console.as_text(f"Result of study '{self.name}'", key_value_table(self._facts()))

    def _repr_html_(self) -> str:
        import html

        facts = "".join(
            f"<tr><th style='text-align:left'>{html.escape(key)}</th><td style='text-align:left'>{html.escape(value)}"
            "</td></tr>"
            for key, value in self._facts().items()
        )
        shown = self.leaderboard().dropna(axis="columns", how="all").head(SHOWN_TRIALS)
        return f"<table>{facts}</table>{shown.to_html(border=0, float_format=score)}"

    def _facts(self) -> dict[str, str]:
        """Return the rows of the short table that displays the result."""
        record, winner = self.record, self.record.winner
        test = NOTHING
        if record.test is not None:
            test = f"{record.metric} {score(record.value)} {interval(record.test.interval)}".rstrip()
        confirmed = f"{record.metric} {score(winner.mean)} ± {score(winner.std)} on {len(winner.values)} fresh seeds"
        chosen = ", ".join(f"{key} {value}" for key, value in parameters(winner.params).items())
        return {
            "test": test,
            "confirmed": confirmed if winner.values else NOTHING,
            "winner": f"trial {winner.trial}: {chosen}",
            "final model": str(self.model_dir),
        }

    @cached_property
    def _predictor(self) -> "Predictor":
        from hpo.workflow.predict import Predictor

        predictor = Predictor(self.model_dir)
        if predictor.record.identity != self.record.identity:
            raise StudyError(
                f"The final model at {self.model_dir} is of another study of the name '{self.name}'. `hpo retrain` "
                "trains this study's again."
            )
        return predictor


def load(name: str | None = None, storage: str | None = None) -> Result:
    """Return the result of a finished study: `name`, or the latest.

    Raises `StudyError` for an unknown study, and for one that is not finished.
    """
    return load_result(open_study(open_storage(storage), name))


def load_result(study: optuna.Study) -> Result:
    """Return the result of `study`. Raises `StudyError` where it is not finished."""
    record = StudyRecord.of(study).result
    if record is None:
        raise StudyError(f"Study '{study.study_name}' is not finished; `hpo run` resumes it.")
    return Result(study, record)


def open_predictor(name: str | None, storage: str | None) -> "Predictor":
    """Return the final model of study `name`, or of the latest one; or the one in the folder `name`.

    A database is opened only where the folders do not have the answer: one names a database, or several studies of
    this name, of different databases, have results here. Raises `StudyError`.
    """
    from hpo.workflow.predict import Predictor

    if name is not None:
        own = [] if storage or os.environ.get("HPO_STORAGE") else folders_of(name)
        for folder in [Path(name), *(found / "final" for found in own if len(own) == 1)]:
            if (folder / FILE_NAME).is_file():
                return Predictor(folder)
    return load(name, storage)._predictor
