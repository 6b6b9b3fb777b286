"""Metrics by name: hpo's own, another of `evaluate`, or a person's file; each with the direction that is better."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from hpo.core.direction import Direction, higher_is_better
from hpo.core.user_code import is_file, load_class, split_reference
from hpo.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import evaluate
    import numpy as np

# Those of `evaluate` for which less is better; it keeps no direction itself.
ERRORS = frozenset({"brier_score", "mae", "mape", "mase", "mse", "perplexity", "smape"})


CLASSES = ([0, 1, 1, 0], [0, 1, 0, 1])


@dataclass(frozen=True)
class Scorer:
    """What a study optimises. Called with what `Task.compare` gives, it gives all metrics, the chosen one under `name`.

    `loss` is the one metric that is not among the values: the training loop knows it and fills it in.
    """

    name: str
    direction: Direction
    makers: "tuple[Callable[[], evaluate.Metric], ...]"
    """The task's own metric, and last the one asked for, where it is another: its first result counts."""
    spell: "Callable[[Any], Any]" = lambda values: values
    """Predictions or references in the form that metrics other than the task's own know."""

    @cached_property
    def metrics(self) -> "tuple[evaluate.Metric, ...]":
        """Made at the first call: to know a name and its direction, `import evaluate` (3.6 s cold) is not needed."""
        return tuple(make() for make in self.makers)

    def __call__(self, predictions: "np.ndarray[Any, Any]", references: "np.ndarray[Any, Any]") -> dict[str, float]:
        """All metrics as numbers. Raises `ConfigError` where a person's metric fails or gives no number."""
        values = _compute(self.metrics[0], predictions, references, self.name)
        for metric in self.metrics[1:]:
            results = _compute(metric, self.spell(predictions), self.spell(references), self.name)
            values |= {**results, self.name: next(iter(results.values()))}
        return values


def load_metric(
    name: str,
    own: "Callable[[], evaluate.Metric]",
    directions: Mapping[str, Direction],
    aliases: Mapping[str, str] = MappingProxyType({}),
    spell: Callable[[Any], Any] = lambda values: values,
    sample: tuple[Any, Any] = CLASSES,
) -> Scorer:
    """The metric called `name`.

    `own` makes the task's metric, whose results are the keys of `directions` without `loss`; `aliases` are other
    names for them. A name that ends in .py is a person's file; any other is asked of `evaluate`. What those get is
    what `spell` makes of predictions and references, and `sample` are a few of both. Raises `ConfigError`.
    """
    known = aliases.get(name, name)
    if known in directions:
        return Scorer(known, directions[known], (own,))
    if is_file(name):
        metric, direction = _from_file(name)
        return _tried(Scorer(split_reference(name)[0].stem, direction, (own, lambda: metric), spell), sample)
    other = _from_evaluate(name, directions)
    return _tried(Scorer(name, "minimize" if name in ERRORS else "maximize", (own, lambda: other), spell), sample)


def check_direction(scorer: Scorer, direction: Direction | None) -> Direction:
    """The direction to optimise in. Raises `ConfigError` where the study asks for the metric's worse side."""
    if direction is not None and direction != scorer.direction:
        better = "higher" if higher_is_better(scorer.direction) else "lower"
        raise ConfigError(
            f"direction: {direction} contradicts the metric '{scorer.name}', of which a {better} value is better: "
            f"leave `direction` out, or write {scorer.direction}."
        )
    return scorer.direction


def _tried(scorer: Scorer, sample: tuple[Any, Any]) -> Scorer:
    """The scorer, after a first call: a metric that fails is told now, not at the first rung."""
    scorer(one_each(sample[0]), one_each(sample[1]))
    return scorer


def one_each(values: "Sequence[Any] | np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """An array with one entry for each of `values`: numbers, or whatever they are as objects."""
    import numpy as np

    if len(values) and isinstance(values[0], tuple | list | str):
        array = np.empty(len(values), dtype=object)
        for place, value in enumerate(values):
            array[place] = tuple(value) if isinstance(value, list) else value
        return array
    return np.asarray(values)


def _compute(metric: "evaluate.Metric", predictions: Any, references: Any, name: str) -> dict[str, float]:
    try:
        found = metric.compute(predictions=predictions, references=references)
        if not found:
            raise ValueError(f"it gave {found!r}, not a name and a number")
        return {key: float(value) for key, value in found.items()}
    except Exception as error:  # a person's code: whatever it raises, say whose it was
        raise ConfigError(f"metric: '{name}' failed: {type(error).__name__}: {error}") from error


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
            f"metric: '{name}' is none of hpo's and `evaluate` cannot load it{offline}."
            f"{did_you_mean(name, known)} Known here: {', '.join(known)}; or a Python file such as ./my_metric.py."
        ) from error
