"""What pydantic found wrong, said to the person who wrote it."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hpo.errors import ConfigError, did_you_mean

# By pydantic's type of error; of the others its own words are good enough.
_PHRASES = {
    "missing": "this key is needed",
    "dict_type": "must hold keys with values",
    "model_type": "must hold keys with values",
    "tuple_type": "must be a list",
    "too_short": "must hold at least one value",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
}


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake in what should have been a `model`: its key, what is allowed, and the nearest known key."""
    first = error.errors()[0]
    *parents, last = first["loc"] or ("",)
    if first["type"] == "extra_forbidden":
        known = list(_model_at(model, parents).model_fields)
        hint = did_you_mean(str(last), known)
        return f"{_key(first['loc'])}: no such key.{hint} Allowed: {', '.join(known)}."
    given = first["input"]
    shown = f" (given: {given!r})" if isinstance(given, str | int | float) else ""
    place = _key(first["loc"])
    return f"{place}{': ' if place else ''}{phrase(first)}{shown}."


def phrase(error: ErrorDetails) -> str:
    """One of pydantic's errors in plain words, such as "must be greater than 0"."""
    own = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return _PHRASES.get(error["type"], own)


def _key(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def _model_at(model: type[BaseModel], location: list[Any]) -> type[BaseModel]:
    """The model whose keys stand at `location` in a `model`."""
    for part in location:
        if part in model.model_fields:
            model = next(_models_in(model.model_fields[part].annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def check_study_name(name: str) -> str:
    """Return `name`, or raise `ConfigError` for one no database keeps: empty, with NUL, or over 512 characters."""
    if not name.strip():
        raise ConfigError("name: a study needs a name that is not empty.")
    if "\0" in name:
        raise ConfigError("name: a study's name cannot hold a NUL character.")
    if len(name) > 512:
        raise ConfigError(f"name: a study's name has at most 512 characters; this one has {len(name)}.")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ConfigError("name: a study's name must be valid UTF-8.") from None
    return name
