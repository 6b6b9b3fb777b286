"""A worker: claims one trial at a time from the study until all three stages are done.

hpo worker --study NAME --storage URL        # by hand, on any machine that reaches the database
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import optuna
from optuna.trial import TrialState

from hpo.config.trial_params import Report, TrialParams
from hpo.config.user_code import no_exit
from hpo.core.paths import claim_run_folder, default_storage
from hpo.core.process import thread_handler
from hpo.errors import EX_TEMPFAIL, StorageError, StudyError
from hpo.errors.redact import RedactedFormatter, print_exception
from hpo.search.factory import build_pruner, build_sampler
from hpo.search.finite_space import FiniteSpace
from hpo.search.ranking import RankedSampler
from hpo.storage.budget import StudyClock, exhaust_budget, prune_waiting, seconds_left, seconds_run, set_phase
from hpo.storage.lease import Worker
from hpo.storage.optuna_internals import study_id
from hpo.storage.reclaim import reclaim
from hpo.storage.records.digests import check_digests
from hpo.storage.records.study import StudyRecord
from hpo.storage.records.trial import TrialRecord
from hpo.storage.status import read_status
from hpo.storage.storage import Storage, open_storage
from hpo.storage.transactions import is_stopped
from hpo.training.execution import assign_devices, choose_execution, cores
from hpo.workflow.callbacks import Callback, CallbackList, TrialInfo
from hpo.workflow.context import Attempt, StudyContext, open_remote_checkpoints
from hpo.workflow.studies import open_study
from hpo.workflow.worker.confirm import confirm_objective
from hpo.workflow.worker.final_model import train_final_model
from hpo.workflow.worker.objective import Objective, OnReport
from hpo.workflow.worker.stages import (
    ConfirmJob,
    confirm_jobs,
    confirm_name,
    final_name,
    has_confirmed_trial,
    is_idle,
    rank_confirmed,
    reserve_seconds,
)
from hpo.workflow.worker.trial_run import TrialObjective, TrialRun, clear_stage
from hpo.workflow.worker.user_objects import UserObjects, load_callbacks, missing_callbacks

log = logging.getLogger("hpo.worker")

POLL_SECONDS = 0.3
RECLAIM_SECONDS = 3.0  # each reclaim locks the study's workers for a moment


@dataclass(frozen=True)
class WorkerSpec:
    """The arguments of a worker process; the study's configuration itself is in the database."""

    study: str
    storage: str | None  # None: HPO_STORAGE of the process
    device: str  # or auto, cuda: the first one on the worker's machine
    threads: int
    final_threads: int  # for the final training, when the other workers are idle
    sharing: int = 1  # processes that share the device's memory; 0: one for each `threads` cores of the machine
    objects: str | None = None  # pickled, that the user passed to `hpo.run`

    def resolve(self) -> "WorkerSpec":
        """Return the spec with the device and the sharing that this machine determines."""
        sharing = self.sharing or max(1, (os.cpu_count() or 1) // self.threads)
        return replace(self, device=assign_devices(self.device, 1)[0], sharing=sharing)


class WorkerLoop:
    """One worker of one study: the database, the study's context, and the loop over stages and trials."""

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
        self.record = StudyRecord.of(self.search)
        self.config = self.record.study_config
        execution = choose_execution(spec.device, spec.threads, spec.sharing)
        self.context = context or StudyContext.create(self.config, execution, identity=self.record.identity)
        self.context.check_fingerprint(self.record.data.fingerprint)
        if context is None:  # else the caller has compared them
            check_digests(self.record)
        claim_run_folder(self.config.name, self.record.identity)
        self.stop = stop or threading.Event()
        self.worker = Worker(self.storage, self.search, spec.device, self.stop)
        self._spec = spec
        self._remote = open_remote_checkpoints(self.config, self.record.identity, self.stop, self.worker.warn)
        self._retry = self.storage.retry_policy.call
        self._finite_space = FiniteSpace.of(self.config.search_space, self.config.labels)
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

    @no_exit()
    def work(self) -> bool:
        """Run trials until the study is finished, a stop of the study is requested, or `stop` is set.

        Returns whether nothing is left to do: False where only `stop` was set.
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
        """Detect a requested stop, and reclaim the trials of dead workers while this one is training."""
        clock = StudyClock(self.search)
        reclaimed = time.monotonic()
        while not over.wait(POLL_SECONDS):
            if self.worker.stop_requested:
                self.stop.set()
            if time.monotonic() - reclaimed >= RECLAIM_SECONDS:
                with suppress(StorageError):  # unavailable or full: the silence of workers is counted from zero again
                    reclaim(self.storage, self.search)
                    clock.tick()  # counts only where no `hpo run` does
                reclaimed = time.monotonic()
        self.storage.remove_session()

    def _search(self) -> bool:
        # The worker's number is mixed in: with one seed, two workers would sample the same configurations.
        seed = (self.config.seed * 7919 + self.worker.number) % 2**31
        study = optuna.load_study(
            study_name=self.search.study_name,
            storage=self.storage,
            sampler=self._sampler(seed),
            pruner=self._objects.pruner or build_pruner(self.config.pruner),
        )
        out_of_time = partial(self._out_of_time, "search", study)
        return self._run_stage("search", study, Objective(self.context, out_of_time, self._on_report("search")))

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        conditional = self.config.search_space.conditional
        sampler = self._objects.sampler or build_sampler(self.config.sampler, conditional, seed, self._finite_space)
        ranking = self.record.ranking
        return sampler if ranking is None else RankedSampler(sampler, ranking.order, seed)

    def _confirm(self) -> bool:
        jobs = confirm_jobs(self.search, self.config)
        study = self._confirm_study(jobs)
        on_report = self._on_report("confirm")

        def objective(trial: optuna.Trial, attempt: Attempt) -> float:
            return confirm_objective(trial, attempt, jobs[trial.number], self.search, self.context, on_report)

        return self._run_stage("confirm", study, objective)

    def _confirm_study(self, jobs: list[ConfirmJob]) -> optuna.Study:
        name = confirm_name(self.search, jobs, self.config.refit)
        return self.storage.create_child_study(name, self.search, len(jobs))

    def _final(self) -> bool:
        jobs = confirm_jobs(self.search, self.config)
        confirm = self._confirm_study(jobs)
        confirmed = rank_confirmed(self.search, confirm, jobs, self.config.constraints)
        name = final_name(confirm, confirmed[0].trial, self.config.keep_adapter)
        study = self.storage.create_child_study(name, self.search, 1, "retrain")
        execution = choose_execution(self._spec.device, self._spec.final_threads, self._spec.sharing)
        on_report = self._on_report("retrain")

        def objective(trial: optuna.Trial, attempt: Attempt) -> float:
            final = train_final_model(trial, attempt, confirmed, self.search, self.context, execution, on_report)
            self._callbacks.on_final_model(final.model_dir, final)
            return final.value

        done = self._run_stage("retrain", study, objective)
        if done:
            self._record_result(study)
        return done

    def _record_result(self, final: optuna.Study) -> None:
        """Copy the final trial's result to the study, also when it was trained before and more trials changed nothing.

        Raises `StudyError` where the final training failed.
        """
        trial = final.get_trials(deepcopy=False)[0]
        record = TrialRecord.of(trial)
        if trial.state != TrialState.COMPLETE:
            raise StudyError(f"The final training failed: {record.failure or 'no reason was recorded'}")
        StudyRecord(result=record.result).save(self.search)

    def _run_stage(self, phase: str, study: optuna.Study, objective: TrialObjective) -> bool:
        """Claim and run the trials of one stage until it is done. Returns False when stopped."""
        was_idle = idle = started = closed = False
        while not self.stop.is_set():
            # Read before claiming, and in two rounds: a trial that another worker releases or starts between reading
            # and claiming is claimed, or waited for, in the second.
            was_idle, idle = idle, is_idle(study)
            over = self._retry(lambda: self._out_of_time(phase, study)) or (
                phase == "search" and self._is_exhausted(study)
            )
            if over and phase == "confirm" and not closed:
                # Finally: a worker that joins later, or with more hours, confirms no more and gets the same winner.
                self._retry(lambda: exhaust_budget(study))
                closed = True
            trial = None if over else self.worker.claim(study)
            if trial is not None:
                if not started:  # not earlier: a worker that joins during a later stage would reset the phase
                    self._retry(lambda: set_phase(self.search, phase))
                    started = True
                self.worker.progress(phase=phase)
                run = TrialRun(self.worker, self.context, study, trial, self.stop, self._remote, self._callbacks)
                run.run(objective)
            elif self._retry(lambda: self._is_stopped(study)):
                return False
            elif idle and was_idle:
                self._retry(lambda: prune_waiting(study))  # those that the budget does not allow to start or resume
                clear_stage(self.context, study, self._remote)
                return True
            elif not idle:
                self.worker.progress(phase="waiting")
                time.sleep(POLL_SECONDS)
        return False

    def _out_of_time(self, phase: str, study: optuna.Study) -> bool:
        """Return whether this stage may start no more trials, so that the next stages fit into the study's hours.

        At least one configuration is confirmed.
        """
        left = None if phase == "retrain" else seconds_left(self.search)
        if left is None:
            return False
        workers = len(read_status(self.storage, self.search.study_name).workers)
        reserved = reserve_seconds(self.search, self.config, workers, left + seconds_run(self.search))
        if phase == "search":
            return left <= reserved.confirm + reserved.final
        return left <= reserved.run + reserved.final and has_confirmed_trial(study, self.config.constraints)

    def _is_exhausted(self, study: optuna.Study) -> bool:
        """Return whether every configuration of a finite search space was tried; more trials would be duplicates."""
        space = self._finite_space
        return space is not None and self._retry(lambda: space.is_exhausted(study.get_trials(deepcopy=False)))

    def _is_stopped(self, study: optuna.Study) -> bool:
        with self.storage.reading() as session:
            return is_stopped(session, study_id(study))

    def _on_report(self, phase: str) -> OnReport:
        device = self.context.execution.device

        def report_progress(trial: optuna.Trial, params: TrialParams, report: Report | None) -> None:
            step, epoch = (report.step, report.epoch) if report else (None, 0.0)
            self.worker.progress(phase=phase, step=step, epoch=epoch, epochs=params.epochs)
            info = TrialInfo(trial.study.study_name, phase, trial.number, self.worker.attempt, params, device)
            self._callbacks.on_report(info, report)

        return report_progress


def run_worker(study: str | None, storage: str | None, device: str) -> None:
    """Run one worker in this process until the study is finished; SIGTERM or Ctrl-C releases its trial.

    Then the exit code asks a scheduler to start it again (`EX_TEMPFAIL`, or 130 after Ctrl-C).
    """
    log_to_stderr()
    stop = threading.Event()
    codes: list[int] = []

    def on_signal(number: int) -> None:
        codes.append(130 if number == signal.SIGINT else EX_TEMPFAIL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, thread_handler(on_signal, then=signal.SIG_IGN))
    database = open_storage(storage)
    name = open_study(database, study).study_name
    spec = WorkerSpec(name, storage or default_storage(), device, cores(), cores()).resolve()
    loop = WorkerLoop(spec, storage=database, stop=stop)
    loop.work()
    if loop.worker.stop_requested:
        log.warning("a stop of study '%s' was requested; resume with `hpo run`", name)
    elif codes and read_status(database, name).phase != "finished":
        raise SystemExit(codes[0])


def log_to_stderr() -> None:
    """Send the worker's log to standard error: a file of the study's logs, or a scheduler's."""
    sys.excepthook = print_exception
    handler = logging.StreamHandler()
    handler.setFormatter(RedactedFormatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
