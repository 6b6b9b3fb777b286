"""Runs a study from its configuration to the final model: validates everything, creates the study, has it trained."""

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from hpo.config.study import StudyConfig
from hpo.config.user_code import no_exit
from hpo.core.imports import gc_disabled
from hpo.core.paths import folders_of, new_identity, run_folder
from hpo.errors import HpoError, StorageError, StudyError
from hpo.reporting.console import console
from hpo.storage.budget import clear_parent, list_studies, set_phase
from hpo.storage.database_file import DatabaseRemoved
from hpo.storage.records.study import StudyRecord
from hpo.storage.status import read_status
from hpo.storage.storage import Storage, open_storage, storage_of
from hpo.storage.studies import remove_orphans
from hpo.tasks.metrics.scorer import check_direction
from hpo.tasks.registry import get_task
from hpo.tasks.task_data import TaskData
from hpo.workflow.callbacks import Callback, CallbackList
from hpo.workflow.configure import Source, configure
from hpo.workflow.launch.resume import as_recorded, changes, existing_study, is_finished
from hpo.workflow.result import Result, load_result
from hpo.workflow.studies import NOT_IN_DATABASE
from hpo.workflow.worker.user_objects import UserObjects, load_callbacks

if TYPE_CHECKING:
    from hpo.workflow.context import StudyContext
    from hpo.workflow.launch.supervisor import Supervisor


@no_exit()
def run(
    source: Source,
    *,
    overrides: Sequence[str] = (),
    name: str | None = None,
    trials: int | None = None,
    hours: float | None = None,
    storage: str | None = None,
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
    callbacks: Sequence[Callback] = (),
    retry_failed: bool = False,
    quiet: bool = False,
) -> Result:
    """Run a study, or resume it: search, confirm, train the final model. Returns its `Result`.

    Args:
        source: A study file, a mapping of the same keys, or a `StudyConfig`. In a mapping, `data` may be a DataFrame or
            a `datasets.Dataset`, or a mapping of splits to such. A table alone is a study as `hpo init` writes it:
            columns and task are recognized, models, search space and metric are chosen.
        overrides: `key=value` strings, such as `budget.max_trials=8`.
        name: The study's name; None: that of the source.
        trials: Total trials of the study, over all of its runs.
        hours: Total wall hours of the study, over all of its runs.
        storage: Database URL; None: that of the source, `HPO_STORAGE`, or `studies/hpo.db`.
        sampler: An Optuna sampler instead of the one that `source` names. Workers in other processes get copies,
            with random numbers of their own.
        pruner: An Optuna pruner instead of the one that `source` names.
        callbacks: Objects in addition to the callbacks that `source` names.
        retry_failed: Return the failed trials of the search to the queue, after what made them fail was corrected.
        quiet: Print nothing.

    A finished study is not run again, except with more trials or hours. Raises an `HpoError` for every mistake before
    anything is trained, and `KeyboardInterrupt` after all running trials were saved.
    """
    with console.quiet() if quiet else nullcontext():
        config = configure(
            source, overrides, name=name, storage=storage, budget__max_trials=trials, budget__max_hours=hours
        )
        objects = UserObjects.of(sampler, pruner, callbacks)
        loaded = load_callbacks(config, objects)
        config = objects.recorded_in(config)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with ExitStack() as shutdown:
            return _Run(config, open_storage(config.storage), objects, loaded, shutdown, retry_failed).run()


@dataclass
class _Run:
    """One call of `run`. Workers that it started are ended with `shutdown`."""

    config: StudyConfig
    storage: Storage
    objects: UserObjects
    callbacks: tuple[Callback, ...]
    shutdown: ExitStack
    retry_failed: bool
    identity: str = field(default_factory=new_identity)  # the study's; of a known one, that in its record

    def run(self) -> Result:
        config = self.config
        remove_orphans(self.storage)
        # The workers of a new study import while the data is read here. An existing one may need none, and a cluster
        # is not asked before the data is known to be valid.
        early = config.backend.name == "local" and config.name not in list_studies(self.storage)
        supervisor = self._start_workers() if early else None
        with console.progress(f"reading {Path(config.data.path).name}"):
            task = get_task(config.task).configure(config)
            data = task.prepare(config.data, config.seed)
            scorer = task.scorer(config.metric, data)
            check_direction(scorer, config.direction)
        known = existing_study(self.storage, config, data, scorer.direction)
        for line in changes(known, config) if known is not None else ():
            console.note(f"  {line}")
        if known is not None and is_finished(known, config):
            console.note(f"Study '{config.name}' is finished: nothing was run.")
            _complete_ending(known)
            return load_result(known)
        if known is None:
            for folder in folders_of(config.name):
                console.warn(f"{folder} has the files of a study '{config.name}' {NOT_IN_DATABASE}")
        else:
            self.identity = StudyRecord.of(known).identity
        supervisor = supervisor or self._start_workers()
        context = self._check(data, supervisor, known)
        study = self._create_study(context, known)
        context = replace(context, identity=StudyRecord.of(study).identity)  # of another process that was first
        hooks, result = CallbackList(self.callbacks, console.warn), None
        hooks.on_study_begin(study)
        try:
            self._train(study, context, supervisor)
            result = self._finish(study)
        except KeyError as error:  # of Optuna
            if config.name in list_studies(self.storage):
                raise
            raise StudyError(
                f"Study '{config.name}' was deleted while it ran; the same command starts it again."
            ) from error
        except DatabaseRemoved as error:
            raise StorageError(f"{error} {self._after_removal()}") from None
        except HpoError as error:
            with suppress(StorageError, KeyError):
                if StudyRecord.of(study).result is None and not _is_stopped(study):
                    set_phase(study, "failed", str(error))
            raise
        finally:
            with suppress(StorageError, KeyError):  # KeyError: of a deleted study
                clear_parent(study)
            hooks.on_study_end(study, result)
        return result

    def _after_removal(self) -> str:
        """Save what the removed database held; return what was saved, and what to do."""
        copy = self.storage.save_copy()
        if copy is None:
            return "The search is stopped. Restore the file from a backup; the checkpoints of its trials are kept."
        file = str(copy).rpartition(".saved-")[0]
        return (
            f"The search is stopped and its work saved: move {copy} to {file}, and remove {file}-wal and {file}-shm "
            "where they exist; then the same command resumes it."
        )

    def _start_workers(self) -> "Supervisor":
        """Assign the workers' slots, and start their processes."""
        with console.progress("starting"), gc_disabled():
            from hpo.workflow.launch.placement import create_placement
            from hpo.workflow.launch.supervisor import Supervisor

            inline = self.config.backend.name == "inline"
            objects = None if inline else self.objects.pickled()
            placement = create_placement(self.config, self.identity)
            supervisor = Supervisor(self.config, self.storage, placement, objects)
            self.shutdown.callback(supervisor.close)
            if not inline:
                supervisor.warm_up()
        return supervisor

    def _check(self, data: TaskData, supervisor: "Supervisor", known: optuna.Study | None) -> "StudyContext":
        """Check the models against the study; the models that a `known` study dropped stay dropped."""
        with console.progress("checking the models"), gc_disabled():
            from hpo.workflow.checks.constraints import apply_constraints
            from hpo.workflow.checks.passes import apply_passes
            from hpo.workflow.checks.study import inspect_models, study_warnings
            from hpo.workflow.context import StudyContext, check_remote_checkpoints

            config = as_recorded(self.config, known) if known else self.config
            context = StudyContext.create(config, supervisor.placement.execution_here(), data, self.identity)
            context, dropped = (context, []) if known else apply_constraints(context)
            inspect_models(context)
            if known is None:
                context, doubtful = apply_passes(context)
                dropped = [*dropped, *doubtful]
        check_remote_checkpoints(config, self.identity)
        for line in [*context.data.summary, *context.data.notes, *dropped, *study_warnings(context)]:
            console.note(f"  {line}")
        return context

    def _create_study(self, context: "StudyContext", known: optuna.Study | None) -> optuna.Study:
        """Create the study, or update its budget; the ranking of a `known` one stays as it is."""
        from hpo.workflow.launch.create import create_study
        from hpo.workflow.rank import rank_if_wanted

        ranking = None if known else rank_if_wanted(context)
        return create_study(context, self.storage, ranking, retry_failed=self.retry_failed)

    def _train(self, study: optuna.Study, context: "StudyContext", supervisor: "Supervisor") -> None:
        """Have the workers run all stages of the study."""
        if self.config.backend.name != "inline":
            supervisor.work(study)
            return
        from hpo.workflow.launch.inline import work_inline

        work_inline(study, context, self.storage, self.objects, self.callbacks)

    def _finish(self, study: optuna.Study) -> Result:
        if StudyRecord.of(study).result is None:
            raise StudyError(f"Study '{self.config.name}' was stopped before its end; the same command resumes it.")
        set_phase(study, "finished")
        write_reports(study)
        return load_result(study)


def _is_stopped(study: optuna.Study) -> bool:
    return read_status(storage_of(study), study.study_name).phase == "stopped"


def _complete_ending(study: optuna.Study) -> None:
    """Write what a run that was killed after its result was recorded did not write."""
    folder = run_folder(study.study_name, StudyRecord.of(study).identity)
    if not all((folder / name).is_file() for name in ("report.html", "trials.csv")):
        write_reports(study)
    if read_status(storage_of(study), study.study_name).phase != "finished":
        set_phase(study, "finished")


def write_reports(study: optuna.Study) -> Path:
    """Write the report, the table of trials and the dashboard's notes of a study; returns the report's path."""
    from hpo.reporting.csv import write_trials_csv
    from hpo.reporting.dashboard import annotate_study
    from hpo.reporting.html.report import write_report

    folder = run_folder(study.study_name, StudyRecord.of(study).identity)
    with console.progress("writing the report"):
        write_report(study, folder / "report.html")
        write_trials_csv(study, folder / "trials.csv")
        annotate_study(study)
    return folder / "report.html"
