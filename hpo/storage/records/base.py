"""Records that are stored as attributes of an Optuna study or trial.

Short values are user attributes, which optuna-dashboard shows one a line. Long ones are system attributes: a page of
the dashboard is as wide as its longest user attribute.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self, TypedDict

from pydantic import AfterValidator, BaseModel, ConfigDict

from hpo.errors.redact import redact

SYSTEM_PREFIX = "hpo:"  # of the keys of system attributes

# The text of an error, of hpo or of a library, which may quote a URL.
Redacted = Annotated[str, AfterValidator(redact)]


class Attributes(TypedDict):
    """A record as Optuna's `create_trial` takes it."""

    user_attrs: dict[str, Any]
    system_attrs: dict[str, Any]


class SystemAttribute:
    """Marks a field that is stored as a system attribute."""


class Record(BaseModel):
    """A frozen model that ignores unknown keys: another version of hpo, or the user, may have written more."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")


class AttributeRecord(Record):
    """A record that is stored as one attribute for each of its fields."""

    @classmethod
    def from_attributes(cls, user_attrs: Mapping[str, Any], system_attrs: Mapping[str, Any]) -> Self:
        """Validate the attributes of a study or a trial; those of others are ignored."""
        values = dict(user_attrs)
        for key, value in system_attrs.items():
            if key.startswith(SYSTEM_PREFIX):
                values[key.removeprefix(SYSTEM_PREFIX)] = value
        return cls.model_validate(values)

    def attributes(self) -> Attributes:
        """Return the fields that are set, in the order in which the class declares them."""
        found = Attributes(user_attrs={}, system_attrs={})
        for name, value in self.model_dump(mode="json", include=self.model_fields_set).items():
            if SystemAttribute in type(self).model_fields[name].metadata:
                found["system_attrs"][f"{SYSTEM_PREFIX}{name}"] = value
            else:
                found["user_attrs"][name] = value
        return found
