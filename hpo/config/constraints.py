"""Constraints on the final model: parameters, latency and memory, and the footprint that is compared with them."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from hpo.config.validation import Config


class Constraints(Config):
    """Upper bounds for the final model. Candidates that exceed one are dropped before anything is trained."""

    max_params: int | None = Field(None, ge=1, description="Parameters, including those of the head.")
    max_latency_ms: float | None = Field(
        None, gt=0, description="Milliseconds of inference on one example of median length, on the study's device."
    )
    max_memory_mb: float | None = Field(
        None, gt=0, description="MB (2^20 bytes) of the weights and of inference on that example."
    )

    @property
    def are_set(self) -> bool:
        """Whether any constraint is set."""
        return self != Constraints()

    @property
    def need_inference(self) -> bool:
        """Whether a constraint depends on a measurement of inference: its latency, or its memory beside the weights."""
        return self.max_latency_ms is not None or self.max_memory_mb is not None

    def violations(self, footprint: "Footprint") -> str:
        """Describe the constraints that a model violates; an empty string if none. Unmeasured values violate none."""
        measured = {
            "max_params": (footprint.params, f"it has {footprint.params:,} parameters"),
            "max_latency_ms": (
                footprint.latency_ms,
                f"inference takes {footprint.latency_ms or 0:.3g} ms",
            ),
            "max_memory_mb": (footprint.memory_mb, f"it needs {footprint.memory_mb or 0:.4g} MB"),
        }
        found = []
        for name, (value, description) in measured.items():
            limit = getattr(self, name)
            if limit is not None and value is not None and value > limit:
                found.append(f"{description}, constraints.{name} is {limit:,}")
        return "; ".join(found)


class Footprint(BaseModel):
    """Resources of inference on one example. Before a model is loaded, `memory_mb` is that of its weights alone."""

    model_config = ConfigDict(frozen=True)

    params: int
    memory_mb: float
    latency_ms: float | None = None


def smallest_footprint(measured: Sequence[Footprint]) -> Footprint | None:
    """Return the minimum of several measurements of one configuration: other load on a machine only adds to them."""
    if not measured:
        return None
    times = [footprint.latency_ms for footprint in measured if footprint.latency_ms is not None]
    return Footprint(
        params=min(footprint.params for footprint in measured),
        memory_mb=min(footprint.memory_mb for footprint in measured),
        latency_ms=min(times) if times else None,
    )
