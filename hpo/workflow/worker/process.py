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
    """Import, read the specification, then run trials. SIGTERM releases the running trial to the queue."""
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):  # Ctrl-C and a scheduler's warnings: for the parent
        signal.signal(number, signal.SIG_IGN)
    stop, terminated = threading.Event(), threading.Event()

    def on_sigterm(_number: int) -> None:
        terminated.set()
        stop.set()

    signal.signal(signal.SIGTERM, thread_handler(on_sigterm, then=signal.SIG_IGN))
    with gc_disabled():
        from hpo.training.models.candidate import preload_imports
        from hpo.workflow.worker.loop import WorkerLoop, WorkerSpec, log_to_stderr

        preload_imports()
    freeze_gc()
    log_to_stderr()
    if terminated.is_set():
        raise SystemExit(STOPPED)
    spec = sys.stdin.readline()
    if not spec:
        return  # the parent found a mistake before it started the worker, or exited
    threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True).start()
    try:
        done = WorkerLoop(WorkerSpec(**json.loads(spec)).resolve(), stop=stop).work()
    except HpoError as error:
        log.error("%s", error)
        raise SystemExit(error.exit_code) from None
    if terminated.is_set() and not done:
        raise SystemExit(STOPPED)


def _stop_with_parent(stop: threading.Event) -> None:
    """Set `stop` when the parent exits, which closes its end of the pipe: no worker outlives its supervisor."""
    os.read(sys.stdin.fileno(), 1)  # unbuffered: a thread in a buffered read would block the exit of the process
    stop.set()


if __name__ == "__main__":
    main()
