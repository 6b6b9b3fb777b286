"""Strict parsing of a search space as it is written in YAML; errors name the parameter."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from hpo.config.search_space import Categorical, Fixed, Float, Int, Scalar, SearchSpace, yaml_name
from hpo.config.trial_params import REQUIRES, TrialParams
from hpo.config.validation import phrase
from hpo.errors import ConfigError, did_you_mean

SEARCHABLE = tuple(name for name in TrialParams.model_fields if name not in ("model", "frozen_share"))


def parse_search_space(written: Mapping[str, Any], where: str = "search_space") -> SearchSpace:
    """Parse a search space in the form of a study file.

    Raises `ConfigError` that names the parameter; `where` is the key of the space.
    """
    parameters: dict[str, Any] = {}
    for name, value in written.items():
        if name == "model":
            raise ConfigError(f"{where}.model: the candidates are listed under `models`, not in the search space.")
        if name not in SEARCHABLE:
            raise ConfigError(
                f"{where}.{name}: no such parameter.{did_you_mean(str(name), SEARCHABLE)} "
                f"Allowed: {', '.join(SEARCHABLE)}."
            )
        try:
            key, parameter = _parse_parameter(name, value)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in (name, *first["loc"]))
            raise ConfigError(f"{where}.{key}: {phrase(first)}.") from None
        except ValueError as error:
            raise ConfigError(f"{where}.{name}: {error}.") from None
        parameters[key] = parameter
    space = SearchSpace(parameters=parameters)
    _check_conditions(where, space)
    return space


def _parse_parameter(name: str, value: Any) -> tuple[str, Any]:
    """Return the name under which the parameter is sampled, and the parameter."""
    if isinstance(value, list | tuple):
        value = {"choices": value}
    elif not isinstance(value, Mapping):
        value = {"value": value}
    given = dict(value)
    sampled = name
    if "share" in given:
        bounds = given.pop("share")
        if name != "frozen_layers":
            raise ValueError("only frozen_layers can be given as a share")
        if not isinstance(bounds, list | tuple) or len(bounds) != 2:
            raise ValueError("a share is written {share: [low, high]}, between 0 and 1")
        sampled, (given["low"], given["high"]) = "frozen_share", bounds
    kind = _kind(sampled, given)
    for key in ("low", "high", "value"):
        if key in given:
            given[key] = coerce(sampled, given[key])
    if "choices" in given:
        choices = given["choices"]
        given["choices"] = (
            tuple(coerce(sampled, choice) for choice in choices) if isinstance(choices, list) else choices
        )
    if isinstance(given.get("when"), Mapping):
        given["when"] = {other: _values(other, allowed) for other, allowed in given["when"].items()}
    return sampled, kind(**given)


def _kind(name: str, given: Mapping[str, Any]) -> Any:
    """Return the class of parameter that `given` describes. Raises `ValueError` for keys that it does not accept."""
    if "choices" in given or "value" in given:
        kind: Any = Categorical if "choices" in given else Fixed
    else:
        kind = Int if "int" in str(TrialParams.model_fields[name].annotation) else Float
    known = [key for key in kind.model_fields if key not in ("kind", "when")] + ["when"]
    unknown = next((key for key in given if key not in known), None)
    if unknown is not None:
        raise ValueError(f"no such key '{unknown}'.{did_you_mean(str(unknown), known)} Allowed: {', '.join(known)}")
    if issubclass(kind, Float | Int) and not {"low", "high"} <= given.keys():
        raise ValueError("write {low: …, high: …}, a list of choices, or one value")
    return kind


def coerce(name: str, value: Any) -> Any:
    """Convert `value` as `TrialParams` does: 16.0 and "16" to 16. Raises `ValueError` for one that is not allowed."""
    if not isinstance(value, Scalar):
        raise ValueError(f"{value} is not a single value")
    try:
        params = TrialParams.model_validate({"model": "any", name: value}, strict=isinstance(value, bool))
    except ValidationError as error:
        shown = "null" if value is None else value
        raise ValueError(f"{shown} is not allowed: {phrase(error.errors()[0])}") from None
    return getattr(params, name)


def _values(name: str, allowed: Any) -> tuple[Any, ...]:
    """Return the values of a condition, which may be a single value or a list."""
    values = allowed if isinstance(allowed, list | tuple) else (allowed,)
    return tuple(coerce(name, value) if name in SEARCHABLE else value for value in values)


def _check_conditions(where: str, space: SearchSpace) -> None:
    """Check each condition against the parameters above it; `StudyConfig` checks conditions on `model`."""
    before: dict[str, Any] = {}
    written = {yaml_name(name): parameter for name, parameter in space.parameters.items()}
    for name, parameter in written.items():
        if name in REQUIRES:
            _check_need(where, name, written)
        for other, allowed in (parameter.when or {}).items():
            if other != "model":
                problem = _condition_problem(name, other, allowed, before, written)
                if problem:
                    raise ConfigError(f"{where}.{name}.when.{other}: {problem}")
        before[name] = parameter


def _check_need(where: str, name: str, written: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a parameter that no trial in the space would use."""
    other, value = REQUIRES[name]
    if other not in written or written[other].nearest(value) != value:
        raise ConfigError(f"{where}.{name}: used only with {other}: {value}, which this search space never has.")


def _condition_problem(
    name: str, other: str, allowed: tuple[Scalar, ...], before: Mapping[str, Any], parameters: Mapping[str, Any]
) -> str:
    """Describe the mistake in a condition of parameter `name` on parameter `other`; an empty string if none."""
    if other not in parameters:
        return f"the search space has no '{other}'.{did_you_mean(other, ['model', *parameters])}"
    if other not in before:
        return f"'{other}' must be above '{name}' in the search space."
    if isinstance(before[other], Float):
        return f"'{other}' is a range of real numbers; a condition needs choices, integers or a fixed value."
    never = [value for value in allowed if before[other].nearest(value) != value]
    return f"'{other}' is never {never[0]} in this search space." if never else ""
