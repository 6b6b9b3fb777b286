"""Process identity, by which other processes detect that a worker is dead, and signal handlers."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], object] | signal.Handlers


def machine() -> str:
    """Return an identifier of the process id namespace; an empty string where it is unknown.

    Process ids are comparable between processes with the same identifier only. It combines the boot id, as ids are
    reused after a reboot, with the namespace, as containers on one host may share its name but not its ids.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since the boot; None if no such process is alive.

    The kernel reuses process ids; a process id together with its start time is unique.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may contain spaces and parentheses
    return None if fields[0] in ("Z", "X") else fields[19]


def is_known_dead(worker_machine: str, pid: int, start: str) -> bool:
    """Return whether the worker was a process on this machine and has exited. False if that is unknown."""
    return bool(start) and worker_machine == machine() != "" and process_start(pid) != start


def is_known_alive(worker_machine: str, pid: int, start: str) -> bool:
    """Return whether the worker is a process on this machine and is alive, even if it is stopped (SIGSTOP)."""
    return bool(start) and worker_machine == machine() != "" and process_start(pid) == start


def own_start() -> str:
    """Return the start time of this process; an empty string where the system has no /proc."""
    return process_start(os.getpid()) or ""


def keep_interrupts() -> None:
    """Repeat a Ctrl-C that is lost: Python drops what is raised inside a callback of a weak reference.

    Of 54 presses during imports one was printed as "Exception ignored in" and the command went on.
    """
    report = sys.unraisablehook

    def repeat(lost: "sys.UnraisableHookArgs") -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            report(lost)
            return
        again = threading.Timer(0.05, _thread.interrupt_main)  # when the callback has returned
        again.daemon = True
        again.start()

    sys.unraisablehook = repeat


def thread_handler(act: Callable[[int], object], *, then: Handler | None = None) -> Handler:
    """Return a signal handler that calls `act(number)` in a new thread.

    A handler that calls `Event.set` directly can deadlock: `set` acquires a lock, and the signal may interrupt the main
    thread, or an earlier call of the handler, while it holds that lock. Slurm sends SIGTERM twice in a row.

    `then` replaces the handler after the first signal. A process that exits on the signal passes `SIG_IGN`: the
    interpreter drops Python handlers during shutdown, and another signal would kill the process and lose its exit code.
    """

    def handle(number: int, _frame: FrameType | None) -> None:
        if then is not None:
            signal.signal(number, then)
        _thread.start_new_thread(act, (number,))

    return handle


@contextmanager
def on_interrupt(act: Callable[[], object], *, once: bool = False) -> Iterator[None]:
    """Call `act` in a new thread on Ctrl-C or SIGTERM; with `once`, a second one ends the process as without this.

    Python raises `KeyboardInterrupt` wherever the main thread is; inside a finalizer or a weak reference's callback,
    the exception is printed and lost. Does nothing outside the main thread, or where Ctrl-C is ignored.
    """
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in signals}
    for number, handler in handlers.items():
        signal.signal(number, thread_handler(lambda _: act(), then=handler if once else None))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
