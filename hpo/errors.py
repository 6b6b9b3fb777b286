"""The errors that hpo raises on purpose: each speaks to the person, and one tree catches them all.

    HpoError                 anything a person can act on; the command line prints it without a traceback
    ├── ConfigError          a study file, a key, a search space, a command line option
    ├── DataError            the person's data
    ├── ModelError           a candidate model, its tokenizer or its files
    ├── StudyError           the study asked for: unknown, finished otherwise, or made from something else
    ├── StorageError         the database cannot be reached or used (exit code 3)
    ├── DeviceLost           the device failed for this process: only a new one can go on (exit code 75)
    └── TrialError           one trial failed in an expected way: it costs that trial, not the search
        ├── Diverged         the loss became NaN or infinite
        └── OutOfMemory      not even one example fits

Anything else that is raised is a bug and stops the study loudly.
"""

from collections.abc import Iterable
from difflib import get_close_matches

# The exit code of a worker that left before its study's end and may be started again: EX_TEMPFAIL of sysexits.h.
EX_TEMPFAIL = 75


class HpoError(Exception):
    """Something a person can act on. The message says what was wrong, where, what is allowed and what to do."""

    exit_code = 2


class ConfigError(HpoError):
    """A mistake in a study file, a search space or a command line option."""


class DataError(HpoError):
    """A mistake in the person's data."""


class ModelError(HpoError):
    """A candidate model that cannot be found, read or used for the task."""


class StudyError(HpoError):
    """The study does not exist, or exists and was made from something else."""


class StorageError(HpoError):
    """The database cannot be reached or used."""

    exit_code = 3


class DeviceLost(HpoError):
    """A GPU failed in a way that lasts as long as the process: it must be replaced."""

    exit_code = EX_TEMPFAIL


class TrialError(HpoError):
    """One trial failed in an expected way; the search goes on."""


class Diverged(TrialError):
    """The loss of a trial became NaN or infinite."""


class OutOfMemory(TrialError):
    """Not even one example of a trial fits in memory."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the nearest of `known`, else an empty string."""
    names = {name.lower(): name for name in known}
    close = get_close_matches(wrong.lower(), names, n=1, cutoff=0.6)
    return f" Did you mean '{names[close[0]]}'?" if close else ""
