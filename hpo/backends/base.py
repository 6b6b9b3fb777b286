"""The protocol of a backend: it runs one worker process in each of its slots, without Optuna and torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Specification = Mapping[str, Any]  # JSON values

# Exit code of a worker that stopped on request (SIGTERM) with work left: 128 + 15, as in shells.
STOPPED = 143


@dataclass(frozen=True)
class WorkerExit:
    """The end of a worker process."""

    slot: int
    machine: str  # `hpo.core.process.machine()` there: a process id is unique on one machine only
    pid: int
    code: int  # the exit code; negative: the number of the signal
    seconds: float  # run time
    last_line: str  # of the output
    log: str  # path of the output


class Backend(Protocol):
    """Runs worker processes in numbered slots, each with one specification. `tests/backends` tests every backend."""

    def prestart(self, slot: int) -> None:
        """Start the worker of `slot` before its specification is known, if possible, so that it runs its imports."""

    def start(self, specifications: Mapping[int, Specification]) -> None:
        """Start a worker in each slot, as soon as resources are free. Raises `HpoError` if that is impossible."""

    def exits(self) -> list[WorkerExit]:
        """Return the workers that ended since the last call. Their slots may be started again."""

    @property
    def running(self) -> int:
        """Number of running workers."""

    @property
    def pending(self) -> int:
        """Number of started workers that wait in a queue or for a node."""

    @property
    def capacity(self) -> int:
        """Number of slots; it can increase as a cluster grows."""

    def stop(self, grace_seconds: float = 10.0) -> list[WorkerExit]:
        """Request that all workers save and stop; kill those that still run after `grace_seconds`."""

    def kill(self) -> list[WorkerExit]:
        """Kill all workers and release their resources."""


def last_line(log: Path) -> str:
    """Return the last line of a worker's output."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return "no output"
    return next((line for line in reversed(lines) if line.strip()), "no output")
