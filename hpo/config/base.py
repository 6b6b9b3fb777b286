"""The base class of all configuration models."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen model that rejects unknown keys, and reads a number as a string where one is expected (`label: 3`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)
