"""What a backend is: it runs one worker process in each of its slots, and knows neither Optuna nor torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Specification = Mapping[str, Any]  # plain values: it travels as JSON

# The exit code of a worker that left when it was told to (SIGTERM), with work left to do: 128 + 15, as in shells.
STOPPED = 143


@dataclass(frozen=True)
class WorkerExit:
    """A worker process that ended: its slot, where and which it was, its exit code (negative: the signal)."""

    slot: int
    machine: str  # as `hpo.core.process.machine` tells it: a process id means something there only
    pid: int
    code: int
    seconds: float  # that it lived
    last_line: str  # the last line it wrote
    log: str  # where all that it wrote is


class Backend(Protocol):
    """Worker processes in numbered slots, each handed one specification. `tests/backends` holds every one to this."""

    def prestart(self, slot: int) -> None:
        """Have the worker of `slot` begin with its imports, where it can begin before its specification is known."""

    def start(self, specifications: Mapping[int, Specification]) -> None:
        """Start a worker in each of these slots, or as soon as there is room. Raises `HpoError` where none can be."""

    def exits(self) -> list[WorkerExit]:
        """The workers that ended since the last call. Their slots may be started again."""

    @property
    def running(self) -> int:
        """How many workers live."""

    @property
    def pending(self) -> int:
        """How many were started and wait for room, in a queue or for a node."""

    @property
    def capacity(self) -> int:
        """How many slots there is place for; more as a cluster grows."""

    def stop(self, grace_seconds: float = 10.0) -> list[WorkerExit]:
        """Ask all workers to save and leave; kill what is still there after `grace_seconds`."""

    def kill(self) -> list[WorkerExit]:
        """End all workers at once, and let go of what they ran on."""


def last_line(log: Path) -> str:
    """The last thing that a worker wrote."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return "it wrote nothing"
    return next((line for line in reversed(lines) if line.strip()), "it wrote nothing")
