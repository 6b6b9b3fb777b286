"""From a search space to Optuna: suggesting a trial's parameters, and the configurations to try first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any

import optuna

from hpo.config.first_trials import ModelTraits, entry_params, model_filter
from hpo.config.search_space import Categorical, Fixed, Float, Int, SearchSpace
from hpo.config.study import StudyConfig
from hpo.config.trial_params import TrialParams, share_for_count
from hpo.core.format import count
from hpo.errors import ConfigError

Point = dict[str, Any]

# What a default of None (the model's own dropout, never stopping) comes closest to where the space has numbers only:
# 0.1 is the dropout that BERT, RoBERTa, DistilBERT, ELECTRA and DeBERTa were trained with.
NEAREST_TO_NONE = {
    "dropout": 0.1,
    "head_dropout": 0.1,
    "lora_alpha": 16,
    "early_stopping_patience": 10**9,
    "shots": 10**9,
}


# The head alone, on features that are computed once: the cheapest look at what a model knows of the data (linear
# probing: Alain & Bengio, 2016; before fine-tuning: Kumar et al., 2022).
PROBE = {"frozen_share": 1.0}


@dataclass(frozen=True)
class FirstTrials:
    """Configurations in the order in which they are tried, and what a person should hear of how they were chosen."""

    points: tuple[Point, ...]
    note: str = ""


def suggest(trial: optuna.trial.BaseTrial, space: SearchSpace, models: Sequence[str]) -> TrialParams:
    """Sample one configuration: the model first, then each parameter whose condition holds."""
    values: dict[str, Any] = {"model": trial.suggest_categorical("model", list(models))}
    for name, parameter in space.parameters.items():
        if not space.is_active(name, values):
            continue
        match parameter:
            case Fixed():
                values[name] = parameter.value
            case Categorical():
                values[name] = trial.suggest_categorical(name, list(parameter.choices))
            case Int():
                values[name] = trial.suggest_int(
                    name, parameter.low, parameter.effective_high, log=parameter.log, step=parameter.step or 1
                )
            case Float():
                values[name] = trial.suggest_float(
                    name, parameter.low, parameter.effective_high, log=parameter.log, step=parameter.step
                )
    return TrialParams(**values)


def first_trials(config: StudyConfig, models: Mapping[str, ModelTraits], ranked: bool = False) -> FirstTrials:
    """The configurations to try first, as Optuna parameters of the study's space.

    Those the study names, each with every one of `models` that it suits, in their order. Raises `ConfigError` for a
    value that no trial of the space could have. Where it names none, the study's `portfolio`: one good default for each
    model before variants, moved into the space, and no more than a part of the budget. Where `models` are `ranked`, the
    first one's alone: whole trainings of all the others cost more than they tell (`benchmarks/data/README.md`).
    """
    if not config.first_trials:
        return _portfolio(config, dict(islice(models.items(), 1)) if ranked else models)
    queue: list[Point] = []
    for number, given in enumerate(config.first_trials):
        for model in [given["model"]] if "model" in given else models:
            if model in models and model_filter(given).matches(models[model]):  # else dropped: it breaks a constraint
                entry = {**entry_params(given), "model": model}
                point, changed = _complete(entry, config.search_space, models[model].layers, f"first_trials[{number}]")
                if changed:
                    raise ConfigError(f"first_trials[{number}].{changed}.")
                if point not in queue:
                    queue.append(point)
    return FirstTrials(tuple(queue))


def _portfolio(config: StudyConfig, models: Mapping[str, ModelTraits]) -> FirstTrials:
    """Good defaults, one for each model before variants; first of all the head alone (`PROBE`) of the first model.

    First ones take at most half of the budget, variants are added up to a third of it. One with adapters is none where
    the space has no adapters, and the other way round: other rates go with them.
    """
    of_each: list[list[Point]] = []
    probe: list[Point] = []
    moved = left_out = 0
    for model, traits in models.items():
        points: list[Point] = []
        for given in (*(entry for entry in config.portfolio if model_filter(entry).matches(traits)), {}):
            if not given and points:
                break  # what `TrialParams` defaults to is for models that nothing else is known for
            entry = {**entry_params(given), "model": model}
            point, changed = _complete(entry, config.search_space, traits.layers, "search_space.first_trials")
            peft = point.get("peft", getattr(config.search_space.parameters.get("peft"), "value", "none"))
            if given and peft != given.get("peft", "none"):
                left_out += 1
            elif given.items() >= PROBE.items():
                head_alone = TrialParams(**point).resolve_frozen_layers(traits.layers) == traits.layers
                probe = probe or [point] * head_alone
            elif point not in points:
                points.append(point)
                moved += bool(changed)
        of_each.append(points)
    firsts = probe + [points[0] for points in of_each if points]
    firsts = firsts[: max(1, config.budget.max_trials // 2)]
    variants = [point for turn in zip_longest(*(points[1:] for points in of_each)) for point in turn if point]
    queue = firsts + variants[: max(0, config.budget.max_trials // 3 - len(firsts))]
    left_out += len(probe) + sum(map(len, of_each)) - len(queue)
    told = f"first_trials: none are named, so {count(len(queue), 'good default')} of the models' own recipes go first"
    more = [f"{moved} moved into the search space"] * bool(moved) + [f"{left_out} left out"] * bool(left_out)
    return FirstTrials(tuple(queue), f"{told}: {', '.join(more)}." if more else "")


def _complete(given: Mapping[str, Any], space: SearchSpace, layers: int, where: str) -> tuple[Point, str]:
    """A whole configuration of `space` from a partial one; what is not given is the default, moved into the space.

    Beside it what was given and could not stay: the first of it, for people; empty: nothing.
    """
    asked = TrialParams.model_validate(given)
    values: dict[str, Any] = {"model": asked.model}
    changed = ""
    try:
        for name, parameter in space.parameters.items():
            if space.is_active(name, values):
                values[name] = parameter.nearest(_start(name, parameter, asked, layers))
        carried_out = TrialParams(**values)
        for name in given:
            wanted, got = (_resolved(name, params, layers) for params in (asked, carried_out))
            if not changed and wanted != got and not (isinstance(got, float) and math.isclose(wanted, got)):
                changed = (
                    f"{name}: {wanted} is outside the search space; the nearest is {got}"
                    if name in values or (name == "frozen_layers" and "frozen_share" in values)
                    else f"{name}: {wanted} is not in the search space, where each trial of this kind has {got}"
                )
    except ValueError as error:
        raise ConfigError(f"{where}.{error}.") from None
    return {name: v for name, v in values.items() if not isinstance(space.parameters.get(name), Fixed)}, changed


def _start(name: str, parameter: Any, params: TrialParams, layers: int) -> Any:
    """The value of `params` for one parameter of the space: frozen layers as a count or a share, whichever is due."""
    frozen = params.resolve_frozen_layers(layers)
    value = {"frozen_layers": frozen, "frozen_share": share_for_count(frozen, layers)}.get(name, getattr(params, name))
    return NEAREST_TO_NONE[name] if value is None and None not in parameter.extremes() else value


def _resolved(name: str, params: TrialParams, layers: int) -> Any:
    return params.resolve_frozen_layers(layers) if name.startswith("frozen_") else getattr(params, name)
