"""Signal handlers that run in threads, and process identity."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

from hpo.core.process import (
    is_known_alive,
    is_known_dead,
    machine,
    on_interrupt,
    own_start,
    process_start,
    thread_handler,
)


def test_a_second_signal_does_not_wait_for_the_first_handler() -> None:
    both = threading.Barrier(3, timeout=20)
    before = signal.signal(signal.SIGUSR1, thread_handler(lambda _: both.wait()))
    try:
        for _ in range(2):
            signal.raise_signal(signal.SIGUSR1)
        both.wait()  # raises where the barrier broke
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_during_shutdown_does_not_kill_the_process() -> None:
    """The interpreter has dropped its handlers by then."""
    script = (
        "import signal, sys\n"
        "from hpo.core.process import thread_handler\n"
        "signal.signal(signal.SIGTERM, thread_handler(lambda _: None, then=signal.SIG_IGN))\n"
        "class Last:\n"
        "    def __del__(self, send=signal.raise_signal, number=signal.SIGTERM): send(number)\n"
        "sys.last = Last()\n"
        "signal.raise_signal(signal.SIGTERM)\n"
        "raise SystemExit(75)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 75


def test_ctrl_c_inside_a_weakref_callback_is_not_lost() -> None:
    class Last:
        pass

    interrupted = threading.Event()
    last = Last()
    # An exception that a weak reference's callback raises is printed and lost.
    watched = weakref.ref(last, lambda _: signal.raise_signal(signal.SIGINT))
    with on_interrupt(interrupted.set, once=True):
        del last
        assert watched() is None and interrupted.wait(20)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_ignored_ctrl_c_stays_ignored() -> None:
    """As for a background process of a shell."""
    interrupted = threading.Event()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with on_interrupt(interrupted.set):
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN and not interrupted.is_set()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_process_is_known_by_its_id_and_start_time() -> None:
    pid, start = os.getpid(), own_start()
    assert is_known_alive(machine(), pid, start) and not is_known_dead(machine(), pid, start)
    assert is_known_dead(machine(), pid, "0") and not is_known_alive(machine(), pid, "0")  # the id was reused
    for unknown in (("another machine", pid, start), (machine(), pid, "")):
        assert not is_known_alive(*unknown) and not is_known_dead(*unknown)


def test_a_killed_process_is_dead_before_it_is_joined() -> None:
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    child.start()
    assert child.pid is not None
    start = process_start(child.pid)
    assert start is not None and not is_known_dead(machine(), child.pid, start)
    child.kill()
    deadline = time.monotonic() + 300
    while not is_known_dead(machine(), child.pid, start):  # a zombie until it is joined
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.join()


LOSE = """
import time, weakref
from hpo.core.process import keep_interrupts

class Anything: pass

def press(_):
    raise KeyboardInterrupt

keep_interrupts()
anything = Anything()
reference = weakref.ref(anything, press)
try:
    del anything
    time.sleep(30)
except KeyboardInterrupt:
    print("kept")
"""


def test_ctrl_c_inside_a_callback_of_a_weak_reference_is_not_lost() -> None:
    done = subprocess.run([sys.executable, "-c", LOSE], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("kept\n", "")
