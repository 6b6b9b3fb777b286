"""The base class of all configuration models, the messages of their validation errors, and the names of studies."""

import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from hpo.errors import ConfigError, did_you_mean
from hpo.errors.redact import redact_url

# By pydantic's error type. Other types keep pydantic's message.
_PHRASES = {
    "missing": "this key is required",
    "dict_type": "must hold keys with values",
    "model_type": "must hold keys with values",
    "tuple_type": "must be a list",
    "too_short": "must hold at least one value",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
}


class Config(BaseModel):
    """A frozen model that rejects unknown keys, and reads a number as a string where one is expected (`label: 3`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, given: Any, info: ValidationInfo) -> Any:
        """Reject `max_trials: true`, which Python would count as 1."""
        if isinstance(given, bool) and info.field_name:
            expected = cls.model_fields[info.field_name].annotation
            kinds = get_args(expected) if get_origin(expected) in (Union, types.UnionType) else (expected,)
            if {int, float} & set(kinds) and bool not in kinds:
                raise ValueError(f"must be {'an integer' if int in kinds else 'a number'}")
        return given


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return a message for the first error in a `model`: the key, what is allowed, and the nearest known key."""
    first = error.errors()[0]
    *parents, last = first["loc"] or ("",)
    if first["type"] == "extra_forbidden":
        known = list(_model_at(model, parents).model_fields)
        hint = did_you_mean(str(last), known)
        return f"{_key(first['loc'])}: no such key.{hint} Allowed: {', '.join(known)}."
    given = first["input"]
    if isinstance(given, str):
        given = redact_url(given)
    shown = f" (given: {given!r})" if isinstance(given, str | int | float) else ""
    key = _key(first["loc"])
    return f"{key}{': ' if key else ''}{phrase(first)}{shown}."


def phrase(error: ErrorDetails) -> str:
    """Return one of pydantic's errors as a phrase, such as "must be greater than 0"."""
    own = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return _PHRASES.get(error["type"], own)


def _key(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def _model_at(model: type[BaseModel], location: list[Any]) -> type[BaseModel]:
    """Return the nested model at `location` in `model`."""
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
    """Return `name`. Raises `ConfigError` if it is empty, contains NUL, or is longer than 512 characters."""
    if not name.strip():
        raise ConfigError("name: must not be empty.")
    if "\0" in name:
        raise ConfigError("name: must not contain a NUL character.")
    if len(name) > 512:
        raise ConfigError(f"name: must have at most 512 characters; this one has {len(name)}.")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ConfigError("name: must be valid UTF-8.") from None
    return name
