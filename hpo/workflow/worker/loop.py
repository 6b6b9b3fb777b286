"""A worker: takes one run at a time from the study until all three stages are done.

hpo worker --study NAME --storage URL        # by hand, on any machine that reaches the database
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import optuna
from optuna.trial import TrialState

from hpo.config.load import load_config
from hpo.config.study import StudyConfig
from hpo.config.trial_params import Report, TrialParams
from hpo.core.paths import default_storage
from hpo.core.process import thread_handler
from hpo.errors import EX_TEMPFAIL, StorageError, StudyError
from hpo.search.factory import build_pruner, build_sampler
from hpo.search.ranking import RankedSampler, ranking_of
from hpo.storage.budget import exhaust_budget, prune_waiting, seconds_left, seconds_run, set_phase
from hpo.storage.lease import Worker
from hpo.storage.optuna_internals import study_id
from hpo.storage.reclaim import reclaim
from hpo.storage.status import read_status
from hpo.storage.storage import Storage, open_storage
from hpo.storage.transactions import is_stopped
from hpo.training.execution import assign_devices, choose_execution, cores
from hpo.workflow.callbacks import Callback, CallbackList, TrialInfo
from hpo.workflow.context import StudyContext
from hpo.workflow.stages import (
    confirm_jobs,
    confirm_name,
    confirmed,
    final_name,
    is_idle,
    is_one_confirmed,
    reserve,
)
from hpo.workflow.studies import open_study
from hpo.workflow.user_objects import UserObjects, load_callbacks, missing_callbacks
from hpo.workflow.worker.confirm import confirm_job
from hpo.workflow.worker.final_model import final_run
from hpo.workflow.worker.objective import Objective, OnReport
from hpo.workflow.worker.trial_run import TrialRun, clear_stage

log = logging.getLogger("hpo.worker")

POLL_SECONDS = 0.3
RECLAIM_SECONDS = 3.0  # each look locks the study's workers for a moment


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker process is handed; the study's configuration itself is in the database."""

    study: str
    storage: str | None  # None: HPO_STORAGE of the process
    device: str  # or auto, cuda: the first one here
    threads: int
    final_threads: int  # for the last run, when the other workers have nothing left to train
    sharing: int = 1  # processes on the same device, which share its memory; 0: one for each `threads` cores here
    objects: str | None = None  # pickled ones that the user passed to `hpo.run`

    def here(self) -> "WorkerSpec":
        """The same with what only the machine that it is on can tell."""
        sharing = self.sharing or max(1, (os.cpu_count() or 1) // self.threads)
        return replace(self, device=assign_devices(self.device, 1)[0], sharing=sharing)


class WorkerLoop:
    """One worker at one study: the database, the study context, and the loop over stages."""

    def __init__(
        self,
        spec: WorkerSpec,
        context: StudyContext | None = None,
        storage: Storage | None = None,
        stop: threading.Event | None = None,
        objects: UserObjects | None = None,
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        """`objects` and `callbacks` are those of the caller's process; None: those of `spec` and of the study."""
        self.storage = storage or open_storage(spec.storage)
        self.search = optuna.load_study(study_name=spec.study, storage=self.storage)
        self.config: StudyConfig = load_config(self.search.user_attrs["config"])
        self.context = context or StudyContext(self.config, choose_execution(spec.device, spec.threads, spec.sharing))
        self.context.stop = stop or self.context.stop
        self.context.check_fingerprint(self.search.user_attrs["data"]["fingerprint"])
        self._spec = spec
        self.worker = Worker(self.storage, self.search, spec.device, self.context.stop)
        if remote := self.context.remote_checkpoints:
            remote.shutdown, remote.warn = self.context.stop, self.worker.warn
        self._retry = self.storage.retry_policy.call
        self._objects = objects or UserObjects.received(spec.objects)
        self._callbacks = self._load_callbacks(callbacks)

    def _load_callbacks(self, given: Sequence[Callback] | None) -> CallbackList:
        missing = missing_callbacks(self.config, self._objects)
        if missing:
            message = f"the callbacks {', '.join(missing)} were passed to hpo.run, whose workers alone have them"
            log.warning("%s", message)
            self.worker.warn(message)
        return CallbackList(
            given if given is not None else load_callbacks(self.config, self._objects), self.worker.warn
        )

    def work(self) -> bool:
        """Carry out runs until the study is finished, a stop is asked for, or the flag `context.stop` is set.

        Returns whether nothing is left to do: False where it was the flag.
        """
        over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(over,), name="hpo-watch", daemon=True)
        watch.start()
        try:
            if self._search() and self._confirm() and self._final():
                self._retry(lambda: set_phase(self.search, "finished"))
                return True
            return self.worker.stop_requested
        finally:
            over.set()
            watch.join(timeout=5)
            self.worker.close()

    def _watch(self, over: threading.Event) -> None:
        """Hear of a stop, and return the trials of dead workers to the queue, also while all who live are busy."""
        looked = time.monotonic()
        while not over.wait(POLL_SECONDS):
            if self.worker.stop_requested:
                self.context.stop.set()
            if time.monotonic() - looked >= RECLAIM_SECONDS:
                with suppress(StorageError):  # away or full: the count of silence starts anew
                    reclaim(self.storage, self.search)
                looked = time.monotonic()
        self.storage.remove_session()

    def _search(self) -> bool:
        conditional = self.config.search_space.conditional
        # The worker's id is mixed in: with one seed, two workers would draw the same trials.
        seed = (self.config.seed * 7919 + self.worker.worker_id) % 2**31
        study = self._open(self.search.study_name, seed, conditional)
        over = partial(self._out_of_time, "search", study)
        objective = Objective(self.context, over, self._tell_progress("search"))
        return self._stage("search", study, objective)

    def _confirm(self) -> bool:
        jobs = confirm_jobs(self.search, self.config)
        study = self.storage.create_child_study(confirm_name(self.search, jobs), self.search, len(jobs))
        tell = self._tell_progress("confirm")
        return self._stage(
            "confirm", study, lambda trial: confirm_job(trial, jobs[trial.number], self.search, self.context, tell)
        )

    def _final(self) -> bool:
        jobs = confirm_jobs(self.search, self.config)
        confirm = self.storage.create_child_study(confirm_name(self.search, jobs), self.search, len(jobs))
        ranking = confirmed(self.search, confirm, jobs, self.config.constraints)
        study = self.storage.create_child_study(final_name(confirm, ranking[0].trial), self.search, 1, "retrain")
        tell = self._tell_progress("retrain")
        execution = choose_execution(self._spec.device, self._spec.final_threads, self._spec.sharing)
        done = self._stage(
            "retrain", study, lambda trial: final_run(trial, ranking, self.search, self.context, execution, tell)
        )
        if done:
            self._record_result(study)
        return done

    def _record_result(self, final: optuna.Study) -> None:
        """Make the final run's result the study's: also where the run is of old and more trials changed nothing."""
        run = final.get_trials(deepcopy=False)[0]
        if run.state != TrialState.COMPLETE:
            raise StudyError(f"The final training failed: {run.user_attrs.get('failure', 'no reason was recorded')}")
        if self.search.user_attrs.get("result") != run.user_attrs["result"]:
            self.search.set_user_attr("result", run.user_attrs["result"])

    def _stage(self, phase: str, study: optuna.Study, objective: Callable[[optuna.Trial], float]) -> bool:
        """Take and carry out runs of one stage until it is done. Returns False when told to stop."""
        was_idle = idle = begun = closed = False
        while not self.context.stop.is_set():
            # Looked at before taking, and in two rounds: a trial that another worker gives back or begins between
            # the look and the taking is taken or waited for in the second.
            was_idle, idle = idle, is_idle(study)
            over = self._retry(lambda: self._out_of_time(phase, study))
            if over and phase == "confirm" and not closed:
                # For good: who else comes, or goes on with more hours, confirms no further and names the same winner.
                self._retry(lambda: exhaust_budget(study))
                closed = True
            trial = None if over else self.worker.claim(study)
            if trial is not None:
                if not begun:  # only now: one who comes to a study that is further on does not set it back
                    self._retry(lambda: set_phase(self.search, phase))
                    begun = True
                self.worker.progress(phase=phase)
                self._trial = (study.study_name, trial.number)
                TrialRun(self.worker, self.context, study, trial, self._callbacks).run(objective)
            elif self._retry(lambda: self._is_stopped(study)):
                return False
            elif idle and was_idle:
                # What the budget does not allow to begin, or to go on.
                self._retry(lambda: prune_waiting(study))
                clear_stage(self.context, study)
                return True
            elif not idle:
                self.worker.progress(phase="waiting")
                time.sleep(POLL_SECONDS)
        return False

    def _out_of_time(self, phase: str, study: optuna.Study) -> bool:
        """Whether no run of this stage may begin any more, so that the next ones fit into the study's hours.

        At least one configuration is confirmed.
        """
        left = None if phase == "retrain" else seconds_left(self.search)
        if left is None:
            return False
        workers = len(read_status(self.storage, self.search.study_name).workers)
        kept = reserve(self.search, self.config, workers, left + seconds_run(self.search))
        if phase == "search":
            return left <= kept.confirm + kept.final
        return left <= kept.run + kept.final and is_one_confirmed(study, self.config.constraints)

    def _is_stopped(self, study: optuna.Study) -> bool:
        with self.storage.reading() as session:
            return is_stopped(session, study_id(study))

    def _open(self, name: str, seed: int, conditional: bool) -> optuna.Study:
        return optuna.load_study(
            study_name=name,
            storage=self.storage,
            sampler=self._sampler(conditional, seed),
            pruner=self._objects.pruner or build_pruner(self.config.pruner),
        )

    def _sampler(self, conditional: bool, seed: int) -> optuna.samplers.BaseSampler:
        sampler = self._objects.sampler or build_sampler(self.config.sampler, conditional, seed)
        ranking = ranking_of(self.search)
        return sampler if ranking is None else RankedSampler(sampler, ranking.order, seed)

    def _tell_progress(self, phase: str) -> OnReport:
        def tell(params: TrialParams, report: Report | None) -> None:
            step, epoch = (report.step, report.epoch) if report else (None, 0.0)
            self.worker.progress(phase=phase, step=step, epoch=epoch, epochs=params.epochs)
            study, number = self._trial
            device = self.context.execution.device
            self._callbacks.on_report(TrialInfo(study, phase, number, self.worker.attempt, params, device), report)

        return tell


def work_by_hand(study: str | None, storage: str | None, device: str) -> None:
    """One worker in this process, until the study is finished; SIGTERM or Ctrl-C returns its trial to the queue.

    Then the exit code tells a scheduler to start it again (`EX_TEMPFAIL`, or 130 after Ctrl-C).
    """
    log_to_stderr()
    stop = threading.Event()
    codes: list[int] = []

    def leave(number: int) -> None:
        codes.append(130 if number == signal.SIGINT else EX_TEMPFAIL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, thread_handler(leave, then=signal.SIG_IGN))
    database = open_storage(storage)
    name = open_study(database, study).study_name
    spec = WorkerSpec(name, storage or default_storage(), device, cores(), cores()).here()
    loop = WorkerLoop(spec, storage=database, stop=stop)
    loop.work()
    if loop.worker.stop_requested:
        log.warning("the study '%s' was told to stop; `hpo run` goes on with it", name)
    elif codes and read_status(database, name).phase != "finished":
        raise SystemExit(codes[0])


def log_to_stderr() -> None:
    """What a worker logs goes to its standard error: a file of the study's logs, or a scheduler's."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
