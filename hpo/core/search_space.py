"""What a search may vary: names of `TrialParams` with ranges, choices or fixed values, and conditions between them.

In YAML:

    learning_rate: {low: 1e-6, high: 5e-4, log: true}     # Float
    epochs: {low: 2, high: 6}                             # Int, when both ends are whole
    batch_size: [8, 16, 32]                               # Categorical
    frozen_layers: {share: [0, 1]}                        # a share of the model's layers
    weight_decay: 0.01                                    # fixed, not searched
    warmup_ratio: {low: 0, high: 0.2, when: {lr_scheduler: [linear, cosine]}}
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hpo.core.errors import ConfigError, did_you_mean
from hpo.core.trial import TrialParams

Scalar = bool | int | float | str | None


class _Parameter(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    when: dict[str, tuple[Scalar, ...]] | None = Field(
        None, description="Sampled only where each named parameter has one of these values."
    )


class Fixed(_Parameter):
    """One value for all trials: recorded, not searched."""

    kind: Literal["fixed"] = "fixed"
    value: Scalar

    def extremes(self) -> tuple[Scalar, ...]:
        return (self.value,)


class Categorical(_Parameter):
    """One of a few values."""

    kind: Literal["categorical"] = "categorical"
    choices: tuple[Scalar, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> "Categorical":
        if len({(type(choice), choice) for choice in self.choices}) < len(self.choices):
            raise ValueError("a choice stands twice")
        return self

    def extremes(self) -> tuple[Scalar, ...]:
        return self.choices

    def nearest(self, value: Any) -> Scalar:
        """The choice equal to `value`, else the nearest number among the choices, else the first choice."""
        numbers = [c for c in self.choices if isinstance(c, int | float) and not isinstance(c, bool)]
        if value in self.choices or not numbers or not isinstance(value, int | float):
            return value if value in self.choices else self.choices[0]
        return min(numbers, key=lambda choice: abs(choice - value))


class _Range(_Parameter):
    def _check(self, low: float, high: float, log: bool, step: float | None) -> None:
        if low > high:
            raise ValueError(f"low {low:g} is above high {high:g}")
        if log and low <= 0:
            raise ValueError(f"a log scale needs low > 0, and low is {low:g}")
        if log and step is not None:
            raise ValueError("a log scale has no step")
        if step is not None and step <= 0:
            raise ValueError(f"step {step:g} must be above 0")


class Float(_Range):
    """A real number between `low` and `high`."""

    kind: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False
    step: float | None = None

    @model_validator(mode="after")
    def _sound(self) -> "Float":
        self._check(self.low, self.high, self.log, self.step)
        return self

    def extremes(self) -> tuple[Scalar, ...]:
        return (self.low, self.effective_high)

    def nearest(self, value: Any) -> float:
        """The value of the range nearest to `value`; the lowest for None."""
        if value is None:
            return self.low
        near = min(max(float(value), self.low), self.effective_high)
        return near if self.step is None else self.low + round((near - self.low) / self.step) * self.step

    @property
    def effective_high(self) -> float:
        """The largest value that `step` reaches."""
        if self.step is None:
            return self.high
        return self.low + math.floor((self.high - self.low) / self.step + 1e-9) * self.step


class Int(_Range):
    """A whole number from `low` to `high`, both included."""

    kind: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False
    step: int | None = None

    @model_validator(mode="after")
    def _sound(self) -> "Int":
        self._check(self.low, self.high, self.log, self.step)
        return self

    def extremes(self) -> tuple[Scalar, ...]:
        return (self.low, self.effective_high)

    def nearest(self, value: Any) -> int:
        """The value of the range nearest to `value`; the lowest for None."""
        if value is None:
            return self.low
        near = min(max(int(value), self.low), self.effective_high)
        return near if self.step is None else self.low + round((near - self.low) / self.step) * self.step

    @property
    def effective_high(self) -> int:
        """The largest value that `step` reaches."""
        return self.high if self.step is None else self.low + (self.high - self.low) // self.step * self.step


Parameter = Annotated[Float | Int | Categorical | Fixed, Field(discriminator="kind")]


class SearchSpace(BaseModel):
    """Name → parameter. `model` is not written here: it follows from the study's `models`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters: dict[str, Parameter]

    @property
    def notes(self) -> list[str]:
        """What a person should hear about the space: steps that do not reach the top."""
        return [
            f"{name}: step {p.step:g} does not divide the range: the top is {p.effective_high:g}, not {p.high:g}."
            for name, p in self.parameters.items()
            if isinstance(p, Float | Int) and p.step is not None and not math.isclose(p.effective_high, p.high)
        ]

    @property
    def conditional(self) -> bool:
        """Whether any parameter has a condition (then TPE must sample by groups)."""
        return any(parameter.when for parameter in self.parameters.values())

    def active(self, name: str, values: Mapping[str, Any]) -> bool:
        """Whether parameter `name` is to be sampled, given the `values` sampled before it."""
        when = self.parameters[name].when or {}
        return all(other in values and values[other] in allowed for other, allowed in when.items())

    def to_plain(self) -> dict[str, Any]:
        """The space as a person writes it, for YAML."""
        plain: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            written: Any = parameter.model_dump(mode="json", exclude_defaults=True)
            if name == "frozen_share":
                written["share"] = [written.pop("low"), written.pop("high")]
                name = "frozen_layers"
            elif isinstance(parameter, Fixed) and not parameter.when:
                written = parameter.value
            elif isinstance(parameter, Categorical) and not parameter.when:
                written = list(parameter.choices)
            plain[name] = written
        return plain


SEARCHABLE = tuple(name for name in TrialParams.model_fields if name not in ("model", "frozen_share"))


def parse_search_space(written: Mapping[str, Any], where: str = "search_space") -> SearchSpace:
    """Read a search space as a person writes it; raises `ConfigError` that names the parameter."""
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
            place = ".".join(str(part) for part in (name, *first["loc"][1:]))
            raise ConfigError(f"{where}.{place}: {first['msg'].removeprefix('Value error, ')}.") from None
        except ValueError as error:
            raise ConfigError(f"{where}.{name}: {error}.") from None
        _check_values(where, key, parameter)
        parameters[key] = parameter
    space = SearchSpace(parameters=parameters)
    _check_conditions(where, space)
    return space


def _parse_parameter(name: str, value: Any) -> tuple[str, Any]:
    """Return the name under which the parameter is sampled, and the parameter."""
    if isinstance(value, list | tuple):
        return name, Categorical(choices=tuple(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a number to train with")
    if not isinstance(value, Mapping):
        return name, Fixed(value=value)
    given = dict(value)
    if "share" in given:
        if name != "frozen_layers":
            raise ValueError("only frozen_layers can be given as a share")
        bounds = given.pop("share")
        if not isinstance(bounds, list | tuple) or len(bounds) != 2:
            raise ValueError("a share is written {share: [low, high]}, between 0 and 1")
        return "frozen_share", Float(low=bounds[0], high=bounds[1], **given)
    if "when" in given and isinstance(given["when"], Mapping):
        given["when"] = {k: v if isinstance(v, list | tuple) else (v,) for k, v in given["when"].items()}
    if "choices" in given:
        return name, Categorical(**given)
    if "value" in given:
        return name, Fixed(**given)
    if not {"low", "high"} <= set(given):
        unknown = next((k for k in given if k not in ("low", "high", "log", "step", "when")), None)
        hint = did_you_mean(str(unknown), ("low", "high", "log", "step", "when", "choices")) if unknown else ""
        raise ValueError(f"write {{low: …, high: …}}, a list of choices, or one value{hint and '.' + hint.rstrip('?')}")
    whole = all(isinstance(given.get(k, 1), int) for k in ("low", "high", "step"))
    if whole and _is_int(name):
        return name, Int(**given)
    if _is_int(name):
        raise ValueError("takes whole numbers only")
    return name, Float(**given)


def _is_int(name: str) -> bool:
    return "int" in str(TrialParams.model_fields[name].annotation)


def _check_values(where: str, name: str, parameter: Any) -> None:
    """Hold the ends of a range, or each choice, against what `TrialParams` allows."""
    for value in parameter.extremes():
        try:
            TrialParams.model_validate({"model": "any", name: value}, strict=isinstance(value, bool))
        except ValidationError as error:
            written = "frozen_layers" if name == "frozen_share" else name
            raise ConfigError(f"{where}.{written}: {value} is not allowed: {error.errors()[0]['msg']}.") from None


def _check_conditions(where: str, space: SearchSpace) -> None:
    seen: set[str] = {"model"}
    for name, parameter in space.parameters.items():
        for other in parameter.when or {}:
            if other not in seen:
                raise ConfigError(
                    f"{where}.{name}.when: '{other}' must be a parameter that stands before '{name}'."
                    f"{did_you_mean(other, seen)}"
                )
        seen.add(name)
