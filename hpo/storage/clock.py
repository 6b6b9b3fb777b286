"""The clock of a study's hours: one process at a time advances it; when that process exits, another one does."""

import time

import optuna

from hpo.storage.budget import add_seconds, seconds_run

STALE_SECONDS = 10.0  # without an advance; the process that keeps the clock advances it every 3 s or more often


class StudyClock:
    """One process's view of the clock. Call `tick` every few seconds.

    The database holds the seconds only. A process that reads them unchanged for `STALE_SECONDS` of its own monotonic
    time advances them by that time and keeps the clock; one that reads another's advance stops keeping it. So no time
    is counted twice, and none is lost when the process that keeps the clock is killed.
    """

    def __init__(self, study: optuna.Study, *, keeps: bool = False) -> None:
        """`keeps`: whether this process advances the clock from the start, as the parent of a run does."""
        self._study = study
        self._keeps = keeps
        self._known: float | None = None
        self._since = time.monotonic()

    def tick(self) -> None:
        """Advance the clock if this process keeps it. Raises `StorageUnavailable`; the next call counts the outage."""
        stored, now = seconds_run(self._study), time.monotonic()
        if self._known is not None and stored != self._known:
            self._keeps = False
        elif self._keeps or now - self._since >= STALE_SECONDS:
            if self._known is not None or self._keeps:
                self._keeps = add_seconds(self._study, now - self._since, expected=stored)
                stored = seconds_run(self._study)
        else:
            self._known = stored
            return
        self._known, self._since = stored, now
