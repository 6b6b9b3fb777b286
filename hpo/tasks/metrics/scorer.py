"""Metrics by name, with their direction: hpo's own, those of `evaluate`, or a user's file."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from hpo.config.user_code import USER_MODULE, is_file, load_class, split_reference
from hpo.core.direction import Direction, higher_is_better
from hpo.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import evaluate
    import numpy as np

# Metrics of `evaluate` to minimize; `evaluate` does not record a direction.
ERRORS = frozenset({"brier_score", "mae", "mape", "mase", "mse", "perplexity", "smape"})


CLASSES = ([0, 1, 1, 0], [0, 1, 0, 1])


@dataclass(frozen=True)
class Scorer:
    """The metric that a study optimizes. Called with predictions and references, it returns all metrics of the task.

    The optimized metric is among them as `name`. Only `loss` is not: the training loop computes it.
    """

    name: str
    direction: Direction
    builders: "tuple[Callable[[], evaluate.Metric], ...]"
    """Create the task's own metric, then the optimized one where it is another, of which the first result is used."""
    convert: "Callable[[Any], Any]" = lambda values: values
    """Convert predictions or references to the form that metrics other than the task's own read."""

    @cached_property
    def metrics(self) -> "tuple[evaluate.Metric, ...]":
        """The metrics, created at the first call: name and direction do not need `import evaluate` (3.6 s cold)."""
        return tuple(build() for build in self.builders)

    def __call__(self, predictions: "np.ndarray[Any, Any]", references: "np.ndarray[Any, Any]") -> dict[str, float]:
        """Return all metrics. Raises `ConfigError` where a user's metric fails or does not return a number."""
        values = _compute(self.metrics[0], predictions, references, self.name)
        for metric in self.metrics[1:]:
            results = _compute(metric, self.convert(predictions), self.convert(references), self.name)
            values |= {**results, self.name: next(iter(results.values()))}
        return values


def load_metric(
    name: str,
    build: "Callable[[], evaluate.Metric]",
    directions: Mapping[str, Direction],
    aliases: Mapping[str, str] = MappingProxyType({}),
    convert: Callable[[Any], Any] = lambda values: values,
    sample: tuple[Any, Any] = CLASSES,
) -> Scorer:
    """Return the metric called `name`, or by one of its `aliases`.

    `build` creates the task's own metric, whose results are the keys of `directions` without `loss`. A name that ends
    in .py is a user's file; any other is loaded from `evaluate`. `convert` converts predictions and references for
    these, and they are tried on `sample`, a few of both. Raises `ConfigError`.
    """
    known = aliases.get(name, name)
    if known in directions:
        return Scorer(known, directions[known], (build,))
    if is_file(name):
        metric, direction = _from_file(name)
        return _tried(Scorer(split_reference(name)[0].stem, direction, (build, lambda: metric), convert), sample)
    other = _from_evaluate(name, directions)
    direction = "minimize" if name in ERRORS else "maximize"
    return _tried(Scorer(name, direction, (build, lambda: other), convert), sample)


def check_direction(scorer: Scorer, direction: Direction | None) -> Direction:
    """Return the direction to optimize in. Raises `ConfigError` where the study contradicts the metric's direction."""
    if direction is not None and direction != scorer.direction:
        better = "higher" if higher_is_better(scorer.direction) else "lower"
        raise ConfigError(
            f"direction: {direction} contradicts the metric '{scorer.name}', of which a {better} value is better: "
            f"leave `direction` out, or write {scorer.direction}."
        )
    return scorer.direction


def _tried(scorer: Scorer, sample: tuple[Any, Any]) -> Scorer:
    """Return the scorer after a first call: a metric that fails raises now rather than at the first rung.

    The sample is right in one of two answers: its value is a number, and a metric without one would fail every trial.
    """
    try:
        value = scorer(object_array(sample[0]), object_array(sample[1]))[scorer.name]
        if not math.isfinite(value):
            raise ConfigError(
                f"metric: '{scorer.name}' returned {value} for the predictions {list(sample[0])} and the references "
                f"{list(sample[1])}: a study needs a finite number. Return the worst value where it is undefined."
            )
    except ConfigError as error:
        hint = "" if sample is not CLASSES else " A task of your own with other labels sets `metric_sample`."
        raise ConfigError(f"{error}\nIt was tried on a few predictions and references.{hint}") from error
    return scorer


def object_array(values: "Sequence[Any] | np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Return an array with one entry per value: of numbers, or of objects where values are texts, lists or tuples."""
    import numpy as np

    if len(values) and isinstance(values[0], tuple | list | str):
        array = np.empty(len(values), dtype=object)
        for index, value in enumerate(values):
            array[index] = tuple(value) if isinstance(value, list) else value
        return array
    return np.asarray(values)


def _compute(metric: "evaluate.Metric", predictions: Any, references: Any, name: str) -> dict[str, float]:
    try:
        results = metric.compute(predictions=predictions, references=references)
        if not results:
            raise ValueError(f"it returned {results!r}, not a name and a number")
        return {key: float(value) for key, value in results.items()}
    except (Exception, SystemExit) as error:  # a user's code may raise anything: report which metric it was
        where = _file_of(metric)
        raise ConfigError(f"metric: '{name}'{where} failed: {type(error).__name__}: {error}") from error


def _file_of(metric: "evaluate.Metric") -> str:
    """Return the file of a user's metric in parentheses; an empty string for hpo's own."""
    module = sys.modules.get(type(metric).__module__)
    return f" ({module.__file__})" if module is not None and module.__name__.startswith(USER_MODULE) else ""


def _from_file(reference: str) -> "tuple[evaluate.Metric, Direction]":
    """Return the one `evaluate.Metric` of a user's file, and the file's `direction` (maximize where it has none)."""
    import evaluate

    kind: Any = load_class(reference, evaluate.Metric, "metric")
    direction = getattr(sys.modules[kind.__module__], "direction", "maximize")
    if direction not in ("maximize", "minimize"):
        raise ConfigError(f"metric: {reference}: direction = {direction!r}: write 'maximize' or 'minimize'.")
    return kind(keep_in_memory=True), cast(Direction, direction)


def _from_evaluate(name: str, known: Mapping[str, Direction]) -> "evaluate.Metric":
    import evaluate

    try:
        return evaluate.load(name, keep_in_memory=True)
    except Exception as error:  # not found, no network, a package that the metric needs: each in its own type
        from huggingface_hub import constants

        offline = " (HF_HUB_OFFLINE=1)" if constants.HF_HUB_OFFLINE else ""
        raise ConfigError(
            f"metric: '{name}' is not one of hpo's and `evaluate` cannot load it{offline}."
            f"{did_you_mean(name, known)} Metrics of this task: {', '.join(known)}; or a file such as ./my_metric.py."
        ) from error
