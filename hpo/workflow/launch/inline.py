"""The inline backend: one worker in the process of the caller, for notebooks, debuggers and tests."""

import threading
from collections.abc import Sequence
from contextlib import suppress

import optuna

from hpo.core.paths import default_storage
from hpo.core.process import on_interrupt
from hpo.reporting.console import console
from hpo.storage.budget import StudyClock, set_phase
from hpo.storage.database_file import DatabaseRemoved
from hpo.storage.status import read_status
from hpo.storage.storage import Storage, StorageUnavailable
from hpo.workflow.callbacks import Callback
from hpo.workflow.context import StudyContext
from hpo.workflow.worker.loop import WorkerLoop, WorkerSpec
from hpo.workflow.worker.user_objects import UserObjects

CLOCK_SECONDS = 0.5


def work_inline(
    study: optuna.Study,
    context: StudyContext,
    storage: Storage,
    objects: UserObjects,
    callbacks: Sequence[Callback],
) -> None:
    """Run one worker in this process. On Ctrl-C the running trial is saved first, then `KeyboardInterrupt` raised."""
    device, threads = context.execution.device, context.execution.threads
    spec = WorkerSpec(study.study_name, context.config.storage or default_storage(), device, threads, threads)
    stop, over, interrupted = threading.Event(), threading.Event(), threading.Event()
    follower = threading.Thread(target=_follow, args=(study, storage, over), daemon=True)

    def interrupt() -> None:
        interrupted.set()
        stop.set()

    with on_interrupt(interrupt):
        follower.start()
        try:
            WorkerLoop(spec, context, storage, stop, objects=objects, callbacks=callbacks).work()
        finally:
            over.set()
            follower.join()
    if interrupted.is_set():
        set_phase(study, "stopped")
        console.note("stopped: the running trial is saved, and the same command resumes it")
        raise KeyboardInterrupt


def _follow(study: optuna.Study, storage: Storage, over: threading.Event) -> None:
    """Count the wall time of an inline run and show its progress, until `over` is set."""
    clock = StudyClock(study, keeps=True)

    def count_time() -> bool:
        clock.tick()
        return over.is_set()

    while True:
        with suppress(StorageUnavailable, DatabaseRemoved):  # counted, and shown, when the database is reachable again
            console.live(lambda: read_status(storage, study.study_name), count_time, CLOCK_SECONDS, over.wait)
            return
        if over.wait(CLOCK_SECONDS):
            return
