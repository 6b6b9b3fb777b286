import signal
import subprocess
import sys
import threading

from hpo.core.process import in_thread


def test_a_signal_that_comes_while_another_is_acted_upon_waits_for_nothing() -> None:
    both = threading.Barrier(3, timeout=20)
    before = signal.signal(signal.SIGUSR1, in_thread(lambda _: both.wait()))
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
        "from hpo.core.process import in_thread\n"
        "signal.signal(signal.SIGTERM, in_thread(lambda _: None, once=True))\n"
        "class Last:\n"
        "    def __del__(self, send=signal.raise_signal, number=signal.SIGTERM): send(number)\n"
        "sys.last = Last()\n"
        "signal.raise_signal(signal.SIGTERM)\n"
        "raise SystemExit(75)\n"
    )
    assert subprocess.run([sys.executable, "-c", told], timeout=60).returncode == 75
