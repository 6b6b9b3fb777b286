import signal
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
