"""Measures the CPU time of a running process and all its descendants from outside."""

import resource
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import psutil

SAMPLING_SECONDS = 0.5  # between two samples


class Meter(threading.Thread):
    """Samples the CPU seconds of a process and its descendants; `share` is their autogroup's nice value."""

    def __init__(self, process: "subprocess.Popen[bytes]", share: int | None) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(process.pid)
        self._share = share
        self._stopped = threading.Event()
        self.started_at = time.time()
        self.samples = [(0.0, 0.0)]  # seconds since the start, CPU seconds

    def run(self) -> None:
        """Sample until `end`."""
        while not self._stopped.is_set():
            self._sample()
            self._stopped.wait(SAMPLING_SECONDS)

    def _sample(self) -> None:
        try:
            processes = [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        spent = 0.0
        for process in processes:
            try:
                times = process.cpu_times()
                if self._share is not None:  # each process session, such as an hpo worker's, has its own autogroup
                    Path(f"/proc/{process.pid}/autogroup").write_text(str(self._share))
            except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                continue  # it has ended: its parent's times include it
            spent += times.user + times.system + times.children_user + times.children_system
        # A process that ends while the sum is taken is missing in this sample.
        self.samples.append((time.time() - self.started_at, max(spent, self.samples[-1][1])))

    def end(self, spent: float) -> None:
        """Stop sampling; `spent` is the system's total."""
        self._stopped.set()
        self.join()
        # The total misses processes that no parent waits for, such as Ray's.
        self.samples.append((time.time() - self.started_at, max(spent, self.samples[-1][1])))

    def spent_by(self, seconds: float) -> float:
        """Return the CPU seconds used in the first `seconds`."""
        return float(np.interp(seconds, *zip(*self.samples, strict=True)))


def spent_by_children() -> float:
    """Return the CPU seconds of this process's ended children and their descendants."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
