"""What a study looks like right now, read with a few SQL statements so that 5,000 trials cost under a second."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class WorkerStatus:
    """One worker process, as its row in the database tells."""

    worker_id: int
    host: str
    pid: int
    device: str
    phase: str  # starting, search, confirm, retrain, waiting, gone
    trial: int | None = None
    step: int | None = None  # the last rung reported
    epoch: float | None = None
    epochs: int | None = None  # of the trial in hand
    beat_age: float | None = None  # seconds since its last beat, by the reader's clock; None when never seen twice


@dataclass(frozen=True)
class StudyStatus:
    """One study: how far it is, who works on it, and the best trial so far."""

    name: str
    metric: str
    direction: str  # maximize or minimize
    phase: str  # search, confirm, retrain, finished, stopped
    counts: dict[str, int]  # running, waiting, complete, pruned, failed
    max_trials: int
    max_hours: float | None
    hours_run: float
    best_trial: int | None = None
    best_value: float | None = None
    best_params: dict[str, Any] = field(default_factory=dict)
    workers: tuple[WorkerStatus, ...] = ()
    confirm_done: int = 0
    confirm_total: int = 0
    failures: tuple[tuple[int, str], ...] = ()  # trial number, reason: the newest few
