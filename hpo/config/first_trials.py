"""First trials: configurations that are tried before any is sampled, and the models that each applies to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, ValidationError, field_validator

from hpo.config.trial_params import TrialParams
from hpo.config.validation import Config, explain
from hpo.errors import ConfigError


@dataclass(frozen=True)
class ModelTraits:
    """Properties of a candidate that decide which first trials apply. `model_type` is that of its `config.json`."""

    layers: int
    model_type: str = ""
    params: int = 0


class ModelFilter(Config):
    """Models that a first trial applies to: `when: {model_type: [bert, roberta], min_params: 50e6}`."""

    model_type: tuple[str, ...] | None = Field(None, description="`model_type` of the model's config, or several.")
    min_params: int = Field(0, ge=0, description="Minimum number of parameters.")
    max_params: int | None = Field(None, ge=0, description="Maximum number of parameters.")

    @field_validator("model_type", mode="before")
    @classmethod
    def _one_or_more(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    def matches(self, model: ModelTraits) -> bool:
        """Return whether the first trial applies to `model`."""
        of_type = self.model_type is None or model.model_type in self.model_type
        return of_type and self.min_params <= model.params <= (self.max_params or model.params)


def model_filter(entry: Mapping[str, Any]) -> ModelFilter:
    """Return the filter in an entry of `first_trials`."""
    return ModelFilter.model_validate(entry.get("when") or {})


def entry_params(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters in an entry of `first_trials`."""
    return {name: value for name, value in entry.items() if name != "when"}


def check_first_trial(entry: Mapping[str, Any], where: str, model: str) -> None:
    """Raise `ConfigError` if an entry is not a valid configuration; `model` is the default of its model."""
    try:
        model_filter(entry)
    except ValidationError as error:
        raise ConfigError(f"{where}.when.{explain(error, ModelFilter)}") from None
    try:
        TrialParams.model_validate({"model": model, **entry_params(entry)})
    except ValidationError as error:
        raise ConfigError(f"{where}.{explain(error, TrialParams)}") from None
