"""Watches what a process and all below it take of the processors, from outside and while they run."""

import resource
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import psutil

SAMPLED_SECONDS = 0.5  # between two looks


class Meter(threading.Thread):
    """Looks at the processor seconds of a process and all below it, again and again."""

    def __init__(self, process: "subprocess.Popen[bytes]", share: int | None) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(process.pid)
        self._share = share
        self._over = threading.Event()
        self.began = time.time()
        self.samples = [(0.0, 0.0)]  # seconds since the beginning, processor seconds

    def run(self) -> None:
        while not self._over.is_set():
            self._look()
            self._over.wait(SAMPLED_SECONDS)

    def _look(self) -> None:
        try:
            processes = [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        spent = 0.0
        for process in processes:
            try:
                times = process.cpu_times()
                if self._share is not None:  # a session of its own, as hpo's workers have, has a share of its own
                    Path(f"/proc/{process.pid}/autogroup").write_text(str(self._share))
            except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                continue  # counted with its parent from now on
            spent += times.user + times.system + times.children_user + times.children_system
        # A process that ends between two looks at it is missed once.
        self.samples.append((time.time() - self.began, max(spent, self.samples[-1][1])))

    def end(self, spent: float) -> None:
        """Stop looking; `spent` is what the system counted in all."""
        self._over.set()
        self.join()
        # What nobody waited for, as Ray's processes, is in no sum of ended ones.
        self.samples.append((time.time() - self.began, max(spent, self.samples[-1][1])))

    def spent_by(self, seconds: float) -> float:
        """Processor seconds by then."""
        return float(np.interp(seconds, *zip(*self.samples, strict=True)))


def spent_by_children() -> float:
    """Processor seconds of this process's children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
