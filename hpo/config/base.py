"""The base class of all configuration models."""

import types
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


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
