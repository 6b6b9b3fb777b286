"""The configurations of a search space that has finitely many: which are untried, and whether any is."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from hpo.config.search_space import Categorical, Fixed, Float, Int, Parameter, SearchSpace

MAX_CONFIGURATIONS = 10_000  # a budget never exhausts more, and enumerating them takes 50 ms

Configuration = dict[str, Any]


class FiniteSpace:
    """All configurations of a search space, without its fixed parameters, as Optuna's trials store them."""

    def __init__(self, configurations: Sequence[Configuration], distributions: dict[str, BaseDistribution]) -> None:
        self.distributions = distributions
        self.choices = {n: list(dict.fromkeys(c[n] for c in configurations if n in c)) for n in distributions}
        self._configurations = {_key(configuration): configuration for configuration in configurations}

    @classmethod
    def of(cls, space: SearchSpace, models: Sequence[str]) -> "FiniteSpace | None":
        """Enumerate the search space of a study with the candidates `models`.

        Returns None if a parameter has infinitely many values, or if there are more than `MAX_CONFIGURATIONS`.
        """
        partial: list[Configuration] = [{"model": model} for model in models]
        distributions: dict[str, BaseDistribution] = {"model": CategoricalDistribution(list(models))}
        for name, parameter in space.parameters.items():
            values = _values(parameter)
            if values is None:
                return None
            partial = [
                {**chosen, name: value}
                for chosen in partial
                for value in (values if space.is_active(name, chosen) else [_INACTIVE])
            ]
            partial = [{key: value for key, value in chosen.items() if value is not _INACTIVE} for chosen in partial]
            if len(partial) > MAX_CONFIGURATIONS:
                return None
            if not isinstance(parameter, Fixed):
                distributions[name] = _distribution(parameter)
        searched = [{name: chosen[name] for name in chosen if name in distributions} for chosen in partial]
        return cls(searched, distributions)

    def __len__(self) -> int:
        return len(self._configurations)

    def untried(self, trials: Iterable[FrozenTrial]) -> list[Configuration]:
        """Return the configurations that no trial has, whether finished, running or queued, in a fixed order."""
        tried = {_key({name: v for name, v in _params(t).items() if name in self.distributions}) for t in trials}
        return [configuration for key, configuration in self._configurations.items() if key not in tried]

    def sample(self, trials: Iterable[FrozenTrial], rng: np.random.RandomState) -> Configuration | None:
        """Sample an untried configuration uniformly; None if there is none."""
        untried = self.untried(trials)
        return untried[rng.randint(len(untried))] if untried else None

    def is_exhausted(self, trials: Iterable[FrozenTrial]) -> bool:
        """Return whether every configuration has been started. Queued trials are claimed before any is sampled."""
        return not self.untried(trial for trial in trials if trial.state != TrialState.WAITING)


_INACTIVE = object()


def _values(parameter: Parameter) -> Sequence[Any] | None:
    """Return the values of a parameter; None if it has infinitely many, or more than `MAX_CONFIGURATIONS`."""
    match parameter:
        case Fixed():
            return [parameter.value]
        case Categorical():
            return parameter.choices
        case Int():
            values = range(parameter.low, parameter.effective_high + 1, parameter.step or 1)
            return values if len(values) <= MAX_CONFIGURATIONS else None
        case Float():
            if parameter.low == parameter.effective_high:
                return [parameter.low]
            if parameter.step is None:
                return None
            count = round((parameter.effective_high - parameter.low) / parameter.step) + 1
            if count > MAX_CONFIGURATIONS:
                return None
            return [parameter.low + number * parameter.step for number in range(count)]


def _distribution(parameter: Categorical | Int | Float) -> BaseDistribution:
    """Return the distribution that `suggest` samples the parameter from."""
    match parameter:
        case Categorical():
            return CategoricalDistribution(list(parameter.choices))
        case Int():
            return IntDistribution(parameter.low, parameter.effective_high, parameter.log, parameter.step or 1)
        case Float():
            return FloatDistribution(parameter.low, parameter.effective_high, parameter.log, parameter.step)


def _params(trial: FrozenTrial) -> Configuration:
    """Return the parameters of a trial; of one that is queued, those it will have."""
    queued = trial.system_attrs.get("fixed_params", {}) if trial.state == TrialState.WAITING else {}
    return {**queued, **trial.params}


def _key(configuration: Configuration) -> tuple[tuple[str, str], ...]:
    """Return a hashable key. Floats that differ in rounding only have the same."""
    return tuple(sorted((name, _text(value)) for name, value in configuration.items()))


def _text(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else repr(value)
