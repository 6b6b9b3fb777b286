"""Processes: which one a worker is, so that another of its machine can tell that it is dead, and signals to them."""

import _thread
import os
import signal
from collections.abc import Callable
from pathlib import Path


def machine() -> str:
    """What two processes share when the process ids of one mean something to the other; empty where that is unknown.

    A host name would not do: containers on one host share it and not their process ids, and a machine that was
    booted again has given the old ids to others.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """When the process began, in the kernel's ticks since the boot; None when there is no such living process.

    A process id is given again after a while: with its start time, it is not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold spaces and parentheses
    return None if fields[0] in ("Z", "X") else fields[19]


def is_surely_dead(worker_machine: str, pid: int, start: str) -> bool:
    """Whether the worker was a process of this very machine that is gone. False where that cannot be known."""
    return bool(start) and worker_machine == machine() != "" and process_start(pid) != start


def is_surely_alive(worker_machine: str, pid: int, start: str) -> bool:
    """Whether the worker is a process of this very machine that lives, even if it is stopped."""
    return bool(start) and worker_machine == machine() != "" and process_start(pid) == start


def own_start() -> str:
    """The start time of this process; empty where the system does not tell."""
    return process_start(os.getpid()) or ""


def in_thread(act: Callable[[int], object], *, once: bool = False) -> Callable[[int, object], None]:
    """A handler of signals that calls `act(number)` in a thread of its own.

    `Event.set` takes a lock: a handler that calls it waits for ever where it interrupts the main thread, or itself,
    in doing so. Slurm sends two SIGTERM at once.

    With `once`, the process ignores the signal from then on. Without, the interpreter gives up the handler as it ends,
    and one more signal kills the process, its exit code lost.
    """

    def handle(number: int, _frame: object) -> None:
        if once:
            signal.signal(number, signal.SIG_IGN)
        _thread.start_new_thread(act, (number,))

    return handle
