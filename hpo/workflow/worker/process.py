"""The process of a worker that `hpo run` started; it reads its specification from standard input.

python -m hpo.workflow.worker.process
"""

import json
import logging
import os
import signal
import sys
import threading

from hpo.backends.base import STOPPED
from hpo.core.imports import freeze_gc, gc_disabled
from hpo.core.process import thread_handler
from hpo.errors import HpoError

log = logging.getLogger("hpo.worker")


def main() -> None:
    """Imports first, then the specification, then work. SIGTERM returns the trial in hand to the queue."""
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):  # Ctrl-C, a scheduler's warnings: for its parent
        signal.signal(number, signal.SIG_IGN)
    stop, terminated = threading.Event(), threading.Event()

    def leave(_number: int) -> None:
        terminated.set()
        stop.set()

    signal.signal(signal.SIGTERM, thread_handler(leave, then=signal.SIG_IGN))
    with gc_disabled():
        from hpo.training.models.candidate import preload_imports
        from hpo.workflow.worker.loop import WorkerLoop, WorkerSpec, log_to_stderr

        preload_imports()
    freeze_gc()
    log_to_stderr()
    if terminated.is_set():
        raise SystemExit(STOPPED)
    given = sys.stdin.readline()
    if not given:
        return  # the parent found a mistake before there was anything to do, or is gone
    threading.Thread(target=_leave_with_parent, args=(stop,), daemon=True).start()
    try:
        done = WorkerLoop(WorkerSpec(**json.loads(given)).resolve(), stop=stop).work()
    except HpoError as error:
        log.error("%s", error)
        raise SystemExit(error.exit_code) from None
    if terminated.is_set() and not done:
        raise SystemExit(STOPPED)


def _leave_with_parent(stop: threading.Event) -> None:
    """Set `stop` when the parent is gone (its end of the pipe is closed): no worker outlives its search."""
    os.read(sys.stdin.fileno(), 1)  # unbuffered: a thread that waits in a buffered read blocks the process's end
    stop.set()


if __name__ == "__main__":
    main()
