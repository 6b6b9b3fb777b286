"""The base of all that a person writes."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen, and an unknown key is an error. A number where text is due is its text: `label: 3`, `name: 2026`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)
