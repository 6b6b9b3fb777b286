"""The configurations that are tried first: those that the study names, or good defaults of its models."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import Any

from hpo.config.first_trials import ModelTraits, entry_params, model_filter
from hpo.config.search_space import Fixed, SearchSpace
from hpo.config.study import StudyConfig
from hpo.config.trial_params import TrialParams, share_for_count
from hpo.core.format import count
from hpo.errors import ConfigError

Point = dict[str, Any]

# The nearest number to a default of None (the model's own dropout, no early stopping) where the space has only numbers:
# 0.1 is the dropout that BERT, RoBERTa, DistilBERT, ELECTRA and DeBERTa were trained with.
NEAREST_TO_NONE = {
    "dropout": 0.1,
    "head_dropout": 0.1,
    "lora_alpha": 16,
    "early_stopping_patience": 10**9,
    "shots": 10**9,
}

# The head alone, on features that are computed once: the cheapest test of how well a model fits the data (linear
# probing: Alain & Bengio, 2016; before fine-tuning: Kumar et al., 2022).
PROBE = {"frozen_share": 1.0}


@dataclass(frozen=True)
class FirstTrials:
    """Configurations in the order in which they are tried, and a note for the user on how they were chosen."""

    points: tuple[Point, ...]
    note: str = ""


def first_trials(config: StudyConfig, models: Mapping[str, ModelTraits], ranked: bool = False) -> FirstTrials:
    """Return the configurations to try first, as Optuna parameters of the study's search space.

    Those that the study names, each with every one of `models` that it suits, in their order. If it names none, the
    study's `portfolio`: one good default for each model before variants, moved into the search space, and no more than
    a part of the budget. If `models` are `ranked`, the defaults of the first one only: full trainings of all others
    cost more than they gain (`benchmarks/data/README.md`).

    Raises `ConfigError` for a named value that no trial of the search space can have.
    """
    if config.first_trials:
        return FirstTrials(tuple(_named_points(config, models)))
    return _portfolio(config, dict(islice(models.items(), 1)) if ranked else models)


def _named_points(config: StudyConfig, models: Mapping[str, ModelTraits]) -> list[Point]:
    points: list[Point] = []
    for number, entry in enumerate(config.first_trials):
        where = f"first_trials[{number}]"
        for model in [entry["model"]] if "model" in entry else models:
            if model not in models or not model_filter(entry).matches(models[model]):
                continue  # a constraint excludes the model, or the entry is for others
            params = {**entry_params(entry), "model": model}
            point, change = _complete(params, config.search_space, models[model].layers, where)
            if change:
                raise ConfigError(f"{where}.{change}.")
            if point not in points:
                points.append(point)
    return points


@dataclass
class _Defaults:
    """The good defaults of one model, the best first."""

    points: list[Point] = field(default_factory=list)
    probe: Point | None = None
    moved: int = 0  # of `points`: those that were outside the search space
    unsuited: int = 0  # entries of the portfolio for another `peft` than the search space has


def _portfolio(config: StudyConfig, models: Mapping[str, ModelTraits]) -> FirstTrials:
    """Return good defaults: the first model's `PROBE`, then the best default of each model, then variants.

    Probe and best defaults take at most half of the budget; variants are added up to a third of it.
    """
    defaults = [_model_defaults(config, model, traits) for model, traits in models.items()]
    probe = [of_model.probe for of_model in defaults if of_model.probe is not None][:1]
    best = probe + [of_model.points[0] for of_model in defaults]
    rounds = zip_longest(*(of_model.points[1:] for of_model in defaults))
    variants = [point for points in rounds for point in points if point]
    queue = best[: max(1, config.budget.max_trials // 2)]
    queue += variants[: max(0, config.budget.max_trials // 3 - len(queue))]
    unsuited = sum(of_model.unsuited for of_model in defaults)
    moved = sum(of_model.moved for of_model in defaults)
    return FirstTrials(tuple(queue), _note(len(queue), moved, unsuited + len(best) + len(variants) - len(queue)))


def _note(queued: int, moved: int, left_out: int) -> str:
    details = [f"{moved} moved into the search space"] * bool(moved) + [f"{left_out} left out"] * bool(left_out)
    note = f"first_trials: none are given, so {count(queued, 'good default')} of the models' own recipes go first"
    return f"{note}: {', '.join(details)}." if details else ""


def _model_defaults(config: StudyConfig, model: str, traits: ModelTraits) -> _Defaults:
    """Return the entries of the portfolio that suit a model, or the defaults of `TrialParams` if there are none.

    An entry with adapters does not suit a space without them, nor the other way round: they need other learning rates.
    """
    space, found = config.search_space, _Defaults()
    suitable = [entry_params(entry) for entry in config.portfolio if model_filter(entry).matches(traits)]
    for entry in [*suitable, {}]:
        if not entry and found.points:
            break
        point, change = _complete({**entry, "model": model}, space, traits.layers, "search_space.first_trials")
        if entry and _peft(point, space) != entry.get("peft", "none"):
            found.unsuited += 1
        elif entry.items() >= PROBE.items():
            if TrialParams(**point).resolve_frozen_layers(traits.layers) == traits.layers:
                found.probe = found.probe or point
        elif point not in found.points:
            found.points.append(point)
            found.moved += bool(change)
    return found


def _peft(point: Point, space: SearchSpace) -> Any:
    """Return the `peft` of a configuration, which the space may fix or not have."""
    return point.get("peft", getattr(space.parameters.get("peft"), "value", "none"))


def _complete(given: Mapping[str, Any], space: SearchSpace, layers: int, where: str) -> tuple[Point, str]:
    """Return the configuration of `space` nearest to `given` and the defaults, and the first change to `given`.

    `layers` are those of the model. The change is a message for the user, empty if there is none. Raises `ConfigError`,
    which starts with `where`, for a configuration that does not suit the model.
    """
    wanted = TrialParams.model_validate(given)
    values: dict[str, Any] = {"model": wanted.model}
    try:
        for name, parameter in space.parameters.items():
            if space.is_active(name, values):
                values[name] = parameter.nearest(_start(name, parameter, wanted, layers))
        change = _first_change(given, wanted, values, layers)
    except ValueError as error:
        raise ConfigError(f"{where}.{error}.") from None
    return {name: v for name, v in values.items() if not isinstance(space.parameters.get(name), Fixed)}, change


def _first_change(given: Mapping[str, Any], wanted: TrialParams, values: Mapping[str, Any], layers: int) -> str:
    """Return which parameter of `given` differs in `values`; empty for none."""
    resolved = TrialParams(**values)
    for name in given:
        before, after = (_resolved(name, params, layers) for params in (wanted, resolved))
        if before == after or (isinstance(after, float) and math.isclose(before, after)):
            continue
        if name in values or (name == "frozen_layers" and "frozen_share" in values):
            return f"{name}: {before} is outside the search space; the nearest is {after}"
        return f"{name}: {before} is not in the search space, where each trial of this kind has {after}"
    return ""


def _start(name: str, parameter: Any, params: TrialParams, layers: int) -> Any:
    """Return the value of `params` for a parameter of the space, which has frozen layers as a count or a share."""
    frozen = params.resolve_frozen_layers(layers)
    value = {"frozen_layers": frozen, "frozen_share": share_for_count(frozen, layers)}.get(name, getattr(params, name))
    return NEAREST_TO_NONE[name] if value is None and None not in parameter.extremes() else value


def _resolved(name: str, params: TrialParams, layers: int) -> Any:
    return params.resolve_frozen_layers(layers) if name.startswith("frozen_") else getattr(params, name)
