import signal
import subprocess
import sys
import threading
import weakref

import pytest

from hpo.core.process import on_interrupt, thread_handler


def test_a_signal_that_comes_while_another_is_acted_upon_waits_for_nothing() -> None:
    both = threading.Barrier(3, timeout=20)
    before = signal.signal(signal.SIGUSR1, thread_handler(lambda _: both.wait()))
    try:
        for _ in range(2):
            signal.raise_signal(signal.SIGUSR1)
        both.wait()  # which a broken barrier raises from
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_that_comes_once_more_as_the_process_ends_does_not_kill_it() -> None:
    """The interpreter has then given up the handlers that were set."""
    told = (
        "import signal, sys\n"
        "from hpo.core.process import thread_handler\n"
        "signal.signal(signal.SIGTERM, thread_handler(lambda _: None, then=signal.SIG_IGN))\n"
        "class Last:\n"
        "    def __del__(self, send=signal.raise_signal, number=signal.SIGTERM): send(number)\n"
        "sys.last = Last()\n"
        "signal.raise_signal(signal.SIGTERM)\n"
        "raise SystemExit(75)\n"
    )
    assert subprocess.run([sys.executable, "-c", told], timeout=60).returncode == 75


def test_ctrl_c_is_not_lost_where_an_exception_is_and_a_second_one_raises_it() -> None:
    class Last:
        pass

    interrupted = threading.Event()
    last = Last()
    # What a weak reference's callback raises goes nowhere.
    watched = weakref.ref(last, lambda _: signal.raise_signal(signal.SIGINT))
    with on_interrupt(interrupted.set, once=True):
        del last
        assert watched() is None and interrupted.wait(20)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_that_is_ignored_stays_so() -> None:
    """As in the background of a shell."""
    interrupted = threading.Event()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with on_interrupt(interrupted.set):
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN and not interrupted.is_set()
    finally:
        signal.signal(signal.SIGINT, before)
