"""The clock of a study's hours: one process at a time advances it, and another takes over when that one is gone."""

import time

import optuna

from hpo.storage.budget import add_seconds, seconds_run

TAKEOVER_SECONDS = 10.0  # without an advance; the keeper advances the clock every 3 s at least


class StudyClock:
    """One process's view of the clock. Call `tick` every few seconds.

    The database holds the seconds only. Whoever sees them unchanged for `TAKEOVER_SECONDS` of its own monotonic time
    advances them by that time, and whoever sees another's advance stops: no time is counted twice, and none is lost
    when the process that counts is killed.
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
        elif self._keeps or now - self._since >= TAKEOVER_SECONDS:
            if self._known is not None or self._keeps:
                self._keeps = add_seconds(self._study, now - self._since, expected=stored)
                stored = seconds_run(self._study)
        else:
            self._known = stored
            return
        self._known, self._since = stored, now
