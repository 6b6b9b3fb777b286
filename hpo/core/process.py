"""Processes: which one a worker is, so that another of its machine can tell that it is dead, and signals to them."""

import _thread
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

Handler = Callable[[int, FrameType | None], object] | signal.Handlers


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


def is_known_dead(worker_machine: str, pid: int, start: str) -> bool:
    """Whether the worker was a process of this very machine that is gone. False where that cannot be known."""
    return bool(start) and worker_machine == machine() != "" and process_start(pid) != start


def is_known_alive(worker_machine: str, pid: int, start: str) -> bool:
    """Whether the worker is a process of this very machine that lives, even if it is stopped."""
    return bool(start) and worker_machine == machine() != "" and process_start(pid) == start


def own_start() -> str:
    """The start time of this process; empty where the system does not tell."""
    return process_start(os.getpid()) or ""


def thread_handler(act: Callable[[int], object], *, then: Handler | None = None) -> Handler:
    """A handler of signals that calls `act(number)` in a thread of its own.

    `Event.set` takes a lock: a handler that calls it waits for ever where it interrupts the main thread, or itself,
    in doing so. Slurm sends two SIGTERM at once.

    `then` handles the signal from then on. A process that ends because of it gives `SIG_IGN`: the interpreter gives up
    other handlers as it ends, and one more signal would kill the process, its exit code lost.
    """

    def handle(number: int, _frame: FrameType | None) -> None:
        if then is not None:
            signal.signal(number, then)
        _thread.start_new_thread(act, (number,))

    return handle


@contextmanager
def on_interrupt(act: Callable[[], object], *, once: bool = False) -> Iterator[None]:
    """Have Ctrl-C call `act` in a thread of its own; with `once`, a second one raises `KeyboardInterrupt` as ever.

    Python raises that exception wherever the main thread is, and where that is a finaliser or a weak reference's
    callback, it is printed and lost. Outside the main thread, and where Ctrl-C is ignored, nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, thread_handler(lambda _: act(), then=before if once else None))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
