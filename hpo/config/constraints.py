"""What a person writes about where the final model is to be used, and what a model takes of it."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from hpo.config.base import Config


class Constraints(Config):
    """What the final model must keep to. Candidates that do not are dropped before anything is trained."""

    max_params: int | None = Field(None, ge=1, description="Parameters, those of the head included.")
    max_latency_ms: float | None = Field(
        None, gt=0, description="Milliseconds to answer one example of median length, on the study's device."
    )
    max_memory_mb: float | None = Field(
        None, gt=0, description="MB (2^20 bytes) of the weights, and of what answering that example takes beside them."
    )

    @property
    def are_set(self) -> bool:
        """Whether there is anything to keep to."""
        return self != Constraints()

    @property
    def need_inference(self) -> bool:
        """Whether only an answer tells: the time that it takes, the memory beside the weights."""
        return self.max_latency_ms is not None or self.max_memory_mb is not None

    def violations(self, footprint: "Footprint") -> str:
        """Which of them a model does not keep to, for people; empty: it keeps to all that is known of it."""
        taken = {
            "max_params": (footprint.params, f"it has {footprint.params:,} parameters"),
            "max_latency_ms": (footprint.latency_ms, f"an answer takes {footprint.latency_ms or 0:.3g} ms"),
            "max_memory_mb": (footprint.memory_mb, f"it takes {footprint.memory_mb or 0:.4g} MB"),
        }
        found = []
        for name, (value, told) in taken.items():
            limit = getattr(self, name)
            if limit is not None and value is not None and value > limit:
                found.append(f"{told}, constraints.{name} is {limit:,}")
        return "; ".join(found)


class Footprint(BaseModel):
    """What a model takes to answer one example. Of a model that was not read yet `memory_mb` is the weights' alone."""

    model_config = ConfigDict(frozen=True)

    params: int
    memory_mb: float
    latency_ms: float | None = None


def smallest_footprint(measured: Sequence[Footprint]) -> Footprint | None:
    """The least of several measurements of one configuration: what else a machine does only adds to them."""
    if not measured:
        return None
    times = [footprint.latency_ms for footprint in measured if footprint.latency_ms is not None]
    return Footprint(
        params=min(footprint.params for footprint in measured),
        memory_mb=min(footprint.memory_mb for footprint in measured),
        latency_ms=min(times) if times else None,
    )
