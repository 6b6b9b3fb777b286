"""The search space: ranges, choices or fixed values of parameters in `TrialParams`, and conditions between them.

In YAML:

    learning_rate: {low: 1e-6, high: 5e-4, log: true}     # Float
    epochs: {low: 2, high: 6}                             # Int, where the parameter is an integer
    batch_size: [8, 16, 32]                               # Categorical
    frozen_layers: {share: [0, 1]}                        # a share of the model's layers
    weight_decay: 0.01                                    # fixed, not searched
    warmup_ratio: {low: 0, high: 0.2, when: {lr_scheduler: [linear, cosine]}}
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Scalar = bool | int | float | str | None


class _Parameter(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    when: dict[str, tuple[Scalar, ...]] | None = Field(
        None, description="Sampled only where each named parameter has one of these values."
    )


class Fixed(_Parameter):
    """One value for all trials: it is recorded, but not searched."""

    kind: Literal["fixed"] = "fixed"
    value: Scalar

    def extremes(self) -> tuple[Scalar, ...]:
        return (self.value,)

    def nearest(self, value: Any) -> Scalar:
        """Return the fixed value, whatever `value` is."""
        return self.value


class Categorical(_Parameter):
    """One of several values."""

    kind: Literal["categorical"] = "categorical"
    choices: tuple[Scalar, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> "Categorical":
        if len({(type(choice), choice) for choice in self.choices}) < len(self.choices):
            raise ValueError("a choice is given twice")
        return self

    def extremes(self) -> tuple[Scalar, ...]:
        return self.choices

    def nearest(self, value: Any) -> Scalar:
        """Return the choice equal to `value`, or the nearest number among the choices, or the first choice."""
        numbers = [c for c in self.choices if isinstance(c, int | float) and not isinstance(c, bool)]
        if value in self.choices or not numbers or not isinstance(value, int | float):
            return value if value in self.choices else self.choices[0]
        return min(numbers, key=lambda choice: abs(choice - value))


class _Range(_Parameter):
    @field_validator("step", mode="before", check_fields=False)
    @classmethod
    def _no_truth_as_step(cls, given: Any) -> Any:
        if isinstance(given, bool):
            raise ValueError("must be a number")
        return given

    def _check(self, low: float, high: float, log: bool, step: float | None) -> None:
        if low > high:
            raise ValueError(f"low {low:g} is above high {high:g}")
        if log and low <= 0:
            raise ValueError(f"a log scale needs low > 0, and low is {low:g}")
        if log and step is not None:
            raise ValueError("a log scale has no step")
        if step is not None and step <= 0:
            raise ValueError(f"step {step:g} must be above 0")


def _on_grid(value: float, low: float, step: float) -> float:
    """Return the largest of low, low + step, … up to `value`, in decimal arithmetic: 0 + 3 × 0.1 is 0.3."""
    start, width = Decimal(str(low)), Decimal(str(step))
    return float(start + (Decimal(str(value)) - start) // width * width)


class Float(_Range):
    """A real number between `low` and `high`, both included."""

    kind: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False
    step: float | None = None

    @model_validator(mode="after")
    def _check_range(self) -> "Float":
        self._check(self.low, self.high, self.log, self.step)
        return self

    def extremes(self) -> tuple[Scalar, ...]:
        return (self.low, self.effective_high)

    def nearest(self, value: Any) -> float:
        """Return the value of the range nearest to `value`; None is read as 0."""
        near = min(max(float(value or 0), self.low), self.effective_high)
        return near if self.step is None else _on_grid(near + self.step / 2, self.low, self.step)

    @property
    def effective_high(self) -> float:
        """The largest value that `step` reaches."""
        return self.high if self.step is None else _on_grid(self.high, self.low, self.step)


class Int(_Range):
    """An integer from `low` to `high`, both included."""

    kind: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False
    step: int | None = None

    @model_validator(mode="after")
    def _check_range(self) -> "Int":
        self._check(self.low, self.high, self.log, self.step)
        return self

    def extremes(self) -> tuple[Scalar, ...]:
        return (self.low, self.effective_high)

    def nearest(self, value: Any) -> int:
        """Return the value of the range nearest to `value`; None is read as 0."""
        near = min(max(int(value or 0), self.low), self.effective_high)
        return near if self.step is None else self.low + round((near - self.low) / self.step) * self.step

    @property
    def effective_high(self) -> int:
        """The largest value that `step` reaches."""
        return self.high if self.step is None else self.low + (self.high - self.low) // self.step * self.step


Parameter = Annotated[Float | Int | Categorical | Fixed, Field(discriminator="kind")]


class SearchSpace(BaseModel):
    """The parameters by name. `model` is not among them: its choices are the study's `models`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters: dict[str, Parameter]

    @property
    def notes(self) -> list[str]:
        """Notes for the user: steps that do not reach the top of their range."""
        return [
            f"{yaml_name(name)}: step {p.step:g} does not divide the range: "
            f"the top is {p.effective_high:g}, not {p.high:g}."
            for name, p in self.parameters.items()
            if isinstance(p, Float | Int) and p.step is not None and not math.isclose(p.effective_high, p.high)
        ]

    @property
    def conditional(self) -> bool:
        """Whether any parameter has a condition (TPE then samples by groups)."""
        return any(parameter.when for parameter in self.parameters.values())

    def is_active(self, name: str, values: Mapping[str, Any]) -> bool:
        """Return whether parameter `name` is sampled, given the `values` sampled before it."""
        when = self.parameters[name].when or {}
        return all(other in values and values[other] in allowed for other, allowed in when.items())

    def to_dict(self) -> dict[str, Any]:
        """Return the space in the form of a study file, for YAML."""
        plain: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            written: Any = parameter.model_dump(mode="json", exclude_defaults=True)
            if name == "frozen_share":
                written["share"] = [written.pop("low"), written.pop("high")]
            elif isinstance(parameter, Fixed) and not parameter.when:
                written = parameter.value
            elif isinstance(parameter, Categorical) and not parameter.when:
                written = list(parameter.choices)
            plain[yaml_name(name)] = written
        return plain


def yaml_name(name: str) -> str:
    """Return a parameter's name in a study file."""
    return "frozen_layers" if name == "frozen_share" else name
