"""One search from configuration to final model: checks everything, creates the study once, has it worked on."""

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from hpo.config.study import StudyConfig
from hpo.core.imports import gc_disabled
from hpo.core.paths import default_storage, run_folder
from hpo.core.process import on_interrupt
from hpo.errors import StudyError
from hpo.reporting.console import console
from hpo.search.ranking import ranking_of
from hpo.storage.budget import add_seconds, list_studies, set_phase
from hpo.storage.status import read_status
from hpo.storage.storage import Storage, StorageUnavailable, open_storage
from hpo.tasks.metrics.scorer import check_direction
from hpo.tasks.registry import get_task
from hpo.tasks.task_data import TaskData
from hpo.workflow.configure import Source, configure
from hpo.workflow.launch.resume import existing_study, is_finished, with_dropped_models
from hpo.workflow.result import Result

if TYPE_CHECKING:
    from hpo.workflow.launch.supervisor import Supervisor

CLOCK_SECONDS = 0.5


def run(
    source: Source,
    *,
    overrides: Sequence[str] = (),
    name: str | None = None,
    trials: int | None = None,
    hours: float | None = None,
    storage: str | None = None,
) -> Result:
    """Run a study, or go on with it: search, confirm, retrain; returns its `Result`.

    `source` is a study file, a mapping of the same keys, or a `StudyConfig`; in a mapping, `data` may be a DataFrame or
    a `datasets.Dataset`, or a mapping of splits to such. `overrides` are `key=value` strings;
    `trials` and `hours` are the whole study's budget, not this run's. A finished study is not run again: more
    trials go on with it. Raises an `HpoError` for every mistake before anything is trained, and
    `KeyboardInterrupt` after all trials in hand were saved.
    """
    config = configure(
        source, overrides, name=name, storage=storage, budget__max_trials=trials, budget__max_hours=hours
    )
    database = open_storage(config.storage)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with ExitStack() as ending:
        # The workers of a new study begin with their imports while the data is read here. One that exists may need
        # none, and a cluster is not asked before the data is known to be sound.
        early = config.backend.name == "local" and config.name not in list_studies(database)
        workers = _hire(config, database, ending) if early else None
        with console.progress(f"reading {Path(config.data.path).name}"):
            task = get_task(config.task).configure(config)
            data = task.prepare(config.data, config.seed)
            check_direction(task.scorer(config.metric, data), config.direction)
        known = existing_study(database, config, data)
        if known is not None and is_finished(known, config):
            console.note(f"Study '{config.name}' is finished: nothing was run.")
            return Result(known, known.user_attrs["result"])
        study = _search(config, database, data, workers or _hire(config, database, ending), known)
    record = study.user_attrs.get("result")
    if record is None:
        raise StudyError(f"Study '{config.name}' was stopped before its end; the same command goes on with it.")
    set_phase(study, "finished")
    write_reports(study)
    return Result(study, record)


def _hire(config: StudyConfig, storage: Storage, ending: ExitStack) -> "Supervisor":
    """Find the places of the study's workers, and have their processes begin; with `ending` they end."""
    with console.progress("starting"), gc_disabled():
        from hpo.workflow.launch.placement import create_placement
        from hpo.workflow.launch.supervisor import Supervisor

        supervisor = Supervisor(config, storage, create_placement(config))
        ending.callback(supervisor.close)
        if config.backend.name != "inline":
            supervisor.warm_up()
    return supervisor


def _search(
    config: StudyConfig, storage: Storage, data: TaskData, supervisor: "Supervisor", known: optuna.Study | None
) -> optuna.Study:
    """Check the models, create the study, and have workers carry out all of its stages.

    What was decided of the models when a `known` study was begun, who is dropped and who ranks first, stays so.
    """
    with console.progress("checking the models"), gc_disabled():
        from hpo.workflow.checks.constraints import apply_constraints
        from hpo.workflow.checks.study import inspect_models, study_warnings
        from hpo.workflow.context import StudyContext
        from hpo.workflow.launch.create import create_study
        from hpo.workflow.rank import rank_if_wanted

        context = StudyContext(
            with_dropped_models(config, known) if known else config, supervisor.placement.execution_here(), data
        )
        dropped = [] if known else apply_constraints(context)
        inspect_models(context)
    if context.remote_checkpoints:
        context.remote_checkpoints.check()
    for line in [*data.notes, *dropped, *study_warnings(context)]:
        console.note(f"  {line}")
    ranking = ranking_of(known) if known else rank_if_wanted(context)
    study = create_study(context, storage, ranking)
    if config.backend.name == "inline":
        _work_inline(study, context, storage)
    else:
        supervisor.work(study)
    return study


def _work_inline(study: optuna.Study, context: Any, storage: Storage) -> None:
    """One worker in this very process: for notebooks, debuggers and tests. Ctrl-C saves the trial in hand first."""
    from hpo.workflow.worker.loop import WorkerLoop, WorkerSpec

    device, threads = context.execution.device, context.execution.threads
    spec = WorkerSpec(study.study_name, context.config.storage or default_storage(), device, threads, threads)
    over, interrupted = threading.Event(), threading.Event()
    follower = threading.Thread(target=_follow, args=(study, storage, over), daemon=True)

    def interrupt() -> None:
        interrupted.set()
        context.stop.set()

    with on_interrupt(interrupt):
        follower.start()
        try:
            WorkerLoop(spec, context, storage).work()
        finally:
            over.set()
            follower.join()
    if interrupted.is_set():
        set_phase(study, "stopped")
        console.note("stopped: the trial in hand is saved, and the same command goes on with it")
        raise KeyboardInterrupt


def _follow(study: optuna.Study, storage: Storage, over: threading.Event) -> None:
    """Count the wall time of an inline run and show how far it is, until it is over."""
    counted = time.monotonic()

    def count_time() -> bool:
        nonlocal counted
        now = time.monotonic()
        add_seconds(study, now - counted)
        counted = now
        return over.is_set()

    while True:
        with suppress(StorageUnavailable):  # it is counted, and shown, when the database is back
            console.live(lambda: read_status(storage, study.study_name), count_time, CLOCK_SECONDS, over.wait)
            return
        if over.wait(CLOCK_SECONDS):
            return


def write_reports(study: optuna.Study) -> Path:
    """Write the page, the table and the dashboard's notes of a study; returns the page."""
    from hpo.reporting.csv import write_trials_csv
    from hpo.reporting.dashboard import annotate_study
    from hpo.reporting.html.report import write_report

    folder = run_folder(study.study_name)
    with console.progress("writing the report"):
        write_report(study, folder / "report.html")
        write_trials_csv(study, folder / "trials.csv")
        annotate_study(study)
    return folder / "report.html"
