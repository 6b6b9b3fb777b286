"""The exceptions that hpo raises on purpose.

    HpoError
    ├── ConfigError
    ├── DataError
    ├── ModelError
    ├── StudyError
    ├── StorageError
    │   ├── StorageUnavailable   (internal: `hpo.storage.retry`)
    │   └── DatabaseRemoved      (`hpo.storage.database_file`)
    ├── DeviceLost
    ├── TrialError
    │   ├── Diverged
    │   └── OutOfMemory
    ├── BudgetSpent              (internal: `hpo.storage.transactions`)
    │   └── StopRequested        (internal)
    └── LeaseLost                (internal)

The internal ones are caught between a worker and its storage, and do not reach a caller of `hpo`. Any other exception
is a bug, and ends the study with a traceback.

The command line prints an `HpoError` without a traceback (`--debug` shows it) and exits with the error's `exit_code`:

    1    a bug: an exception that is no `HpoError`
    2    the user can correct it: the configuration, the data, a model, the study's name
    3    the database cannot be reached or used
    75   the process must be started again: its device failed, or its scheduler asked the worker to leave
    130  interrupted by Ctrl-C
"""

from collections.abc import Iterable
from difflib import get_close_matches

from hpo.errors.redact import redact

# sysexits.h: a temporary failure. A scheduler may start the worker again.
EX_TEMPFAIL = 75


class HpoError(Exception):
    """Base class of all expected errors. The message says what was wrong, where, what is allowed and what to do.

    `exit_code` is the command line's exit status: 2 unless overridden. Secrets in the message are
    hidden.
    """

    exit_code = 2

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(redact(argument) if isinstance(argument, str) else argument for argument in arguments))


class ConfigError(HpoError):
    """A study file, a search space, a command line option or an argument is invalid.

    Raised before anything is trained; the message names the key and, for a file, the line. Exit code 2.
    """


class DataError(HpoError):
    """The data cannot be read, or does not suit the task.

    Raised while data is loaded and checked, and by predictions on invalid inputs; the message names the file, the
    column and the row. Exit code 2.
    """


class ModelError(HpoError):
    """A candidate model cannot be found, loaded or used for the task.

    Most are found by the checks before the first trial. Exit code 2.
    """


class StudyError(HpoError):
    """The study does not exist, was created from a different configuration, or cannot do what is asked.

    Also raised where a search ends early: a worker failed with a bug, or all confirmation runs failed. Exit code 2.
    """


class StorageError(HpoError):
    """The database cannot be reached or used, or its tables are of another version.

    Outages are retried first (`hpo.storage.retry`). Exit code 3.
    """

    exit_code = 3


class DeviceLost(HpoError):
    """A GPU failed in a way that lasts as long as the process.

    Raised in a worker, whose trial is released; the supervisor or the scheduler starts a new process. Exit code 75.
    """

    exit_code = EX_TEMPFAIL


class TrialError(HpoError):
    """One trial failed in an expected way: it is recorded as failed, and the search continues.

    Reaches a caller only outside a search (`hpo check`, `hpo rank`, `hpo retrain`). Exit code 2.
    """


class Diverged(TrialError):
    """The training loss or the metric of a trial became NaN or infinite. Exit code 2."""


class OutOfMemory(TrialError):
    """A single example does not fit in memory: smaller micro-batches cannot help. Exit code 2."""


def enumerated(names: Iterable[str], most: int = 20) -> str:
    """Return the first names with commas, and the number of the others: 10,000 columns gave a message of 69 kB."""
    known = [name if len(name) <= 80 else f"{name[:79]}…" for name in names]
    return ", ".join(known[:most]) + (f" and {len(known) - most:,} more" if len(known) > most else "")


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the nearest of `known`, or an empty string where none is near."""
    names = {name.lower(): name for name in known}
    close = get_close_matches(wrong.lower(), names, n=1, cutoff=0.6)
    return f" Did you mean '{names[close[0]]}'?" if close else ""
