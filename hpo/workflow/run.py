"""One search from configuration to final model: checks everything, creates the study once, watches the workers."""

import os
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from hpo import console
from hpo.backends.local import Exit, LocalBackend
from hpo.core.config import StudyConfig, load_config
from hpo.core.errors import HpoError, StudyError
from hpo.core.paths import default_storage, run_folder
from hpo.core.yaml_file import to_yaml
from hpo.study.budget import add_seconds, list_studies, request_stop, set_budget, set_phase
from hpo.study.status import StatusReader
from hpo.study.storage import Storage, open_storage
from hpo.study.suggest import first_trials
from hpo.study.takeover import reclaim
from hpo.tasks import get_task
from hpo.tasks.metrics import Direction, Scorer, check_direction
from hpo.tasks.task import TaskData
from hpo.workflow.result import Result
from hpo.workflow.workbench import describe_data, versions

CLOCK_SECONDS = 0.5
RESTARTS = 3  # of one worker slot whose process was killed, without a trial finished in between


def run(
    source: str | os.PathLike[str] | Mapping[str, Any] | StudyConfig,
    *,
    overrides: Sequence[str] = (),
    name: str | None = None,
    trials: int | None = None,
    hours: float | None = None,
    storage: str | None = None,
) -> Result:
    """Run a study, or go on with it: search, confirm, retrain; returns its `Result`.

    `source` is a study file, a mapping of the same keys, or a `StudyConfig`. `overrides` are `key=value` strings;
    `trials` and `hours` are the whole study's budget, not this run's. A finished study is not run again: more
    trials go on with it. Raises an `HpoError` for every mistake before anything is trained, and
    `KeyboardInterrupt` after all trials in hand were saved.
    """
    config = _configure(source, overrides, name, trials, hours, storage)
    database = open_storage(config.storage)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with console.progress(f"reading {Path(config.data.path).name}"):
        task = get_task(config.task)
        data = task.prepare(config.data, config.seed)
        scorer = task.metrics(config.metric)
        direction = check_direction(scorer, config.direction)
    known = _known_study(database, config, data)
    if known is not None and is_finished(known, config):
        console.note(f"Study '{config.name}' is finished: nothing was run.")
        return Result(known, known.user_attrs["result"])
    return Search(config, database, data, scorer, direction).run()


def _configure(
    source: Any,
    overrides: Sequence[str],
    name: str | None,
    trials: int | None,
    hours: float | None,
    storage: str | None,
) -> StudyConfig:
    options = {"name": name, "budget.max_trials": trials, "budget.max_hours": hours, "storage": storage}
    return load_config(source, [*overrides, *((key, value) for key, value in options.items() if value is not None)])


def is_finished(study: optuna.Study, config: StudyConfig) -> bool:
    """Whether the study has its result and the configuration asks for no more trials or hours than it had."""
    if not study.user_attrs.get("result"):
        return False
    had = study.user_attrs["config"]["budget"]
    more_trials = config.budget.max_trials > had["max_trials"]
    more_hours = had["max_hours"] is not None and (config.budget.max_hours or 1e9) > had["max_hours"]
    return not (more_trials or more_hours)


def _known_study(storage: Storage, config: StudyConfig, data: TaskData) -> optuna.Study | None:
    """The study of this name, if there is one. Raises `StudyError` when it was made from something else."""
    if config.name not in list_studies(storage):
        return None
    study = optuna.load_study(study_name=config.name, storage=storage)
    if "config" not in study.user_attrs:
        return None  # killed while it was being created
    before = load_config(study.user_attrs["config"]).identity()
    now = config.identity()
    different = _differences(before, now)
    if study.user_attrs["data"]["fingerprint"] != data.fingerprint:
        different.append(f"data: other rows ({study.user_attrs['data']['sizes']} before, {data.sizes} now)")
    if different:
        raise StudyError(
            f"Study '{config.name}' exists and was made from something else:\n  "
            + "\n  ".join(different)
            + "\nGive this one another name (--name NEW), or undo the change."
        )
    return study


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two configurations, key by key."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _differences(old, new, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}: {_short(old)} before, {_short(new)} now")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 160 else f"{text[:157]}…"


@dataclass
class _Slot:
    device: str
    threads: int
    restarts: int = 0
    finished_before: int = -1


class Search:
    """One run of a study: its database, its worker processes, and what is told meanwhile."""

    def __init__(
        self, config: StudyConfig, storage: Storage, data: TaskData, scorer: Scorer, direction: Direction
    ) -> None:
        self.config = config
        self.storage = storage
        self.data = data
        self.scorer = scorer
        self.direction = direction
        self.backend = LocalBackend("hpo.workflow.worker", run_folder(config.name) / "logs")
        self._slots: dict[int, _Slot] = {}
        self._failure: HpoError | None = None
        self._counted = time.monotonic()

    def run(self) -> Result:
        """Search, confirm, retrain, report. Raises the first error of a worker that is not a trial's own."""
        try:
            self._place_workers()
            study = self._create()
            if self.config.backend == "inline":
                self._work_inline(study)
            else:
                self._work_in_processes(study)
        except KeyboardInterrupt:
            self._stop("stopping: the trials in hand are being saved (Ctrl-C again: leave at once)")
            raise
        finally:
            self.backend.kill()
        result = self._result(study)
        write_reports(study)
        return result

    def _place_workers(self) -> None:
        """Decide on the workers, and start their processes early: their imports run while the models are checked."""
        with console.progress("starting"):
            from hpo.training.precision import cores, place_workers

            devices = place_workers(self.config.devices, self.config.workers)
            self._cores = cores()
            threads = max(1, self._cores // len(devices))
            self._slots = {slot: _Slot(device, threads) for slot, device in enumerate(devices)}
            if self.config.backend == "local":
                for slot in self._slots:
                    self.backend.warm_up(slot, threads)

    def _create(self) -> optuna.Study:
        """Check the models, then create the study, or open it again with the budget as it is now."""
        from hpo.training.precision import choose_execution
        from hpo.workflow.check import inspect_models, study_warnings
        from hpo.workflow.workbench import Workbench

        with console.progress("checking the models"):
            self.bench = Workbench(
                self.config, choose_execution(self._slots[0].device, self._slots[0].threads), self.data
            )
            plans = inspect_models(self.bench)
        for line in [*self.data.notes, *study_warnings(self.bench)]:
            console.note(f"  {line}")
        study = optuna.create_study(
            study_name=self.config.name, storage=self.storage, direction=self.direction, load_if_exists=True
        )
        if not study.metric_names:
            with warnings.catch_warnings():
                # Marked experimental; all it does is name the axis in the dashboard.
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([self.scorer.name])
        for key, value in {
            "metric": self.scorer.name,
            "versions": versions(),
            "data": describe_data(self.data),
            "result": None,
            "config": self.config.recorded(),
        }.items():
            if study.user_attrs.get(key) != value:
                study.set_user_attr(key, value)
        hours = self.config.budget.max_hours
        set_budget(study, self.config.budget.max_trials, None if hours is None else hours * 3600)
        request_stop(study, False)
        set_phase(study, "search")
        if not study.user_attrs.get("first_trials"):
            queue = first_trials(self.config, {plan.model: plan.layers for plan in plans})
            for params in queue[: self.config.budget.max_trials]:
                study.enqueue_trial(params, user_attrs={"origin": "first trial"}, skip_if_exists=True)
            study.set_user_attr("first_trials", len(queue))
        folder = run_folder(self.config.name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "study.yaml").write_text(to_yaml(self.config.recorded()), encoding="utf-8")
        return study

    def _work_inline(self, study: optuna.Study) -> None:
        from hpo.workflow.worker import Workplace

        place = Workplace(self._spec(0), self.bench, self.storage)
        over = threading.Event()
        clock = threading.Thread(target=self._count_time, args=(study, over), daemon=True)
        clock.start()
        try:
            place.work()
        finally:
            over.set()
            clock.join()

    def _count_time(self, study: optuna.Study, over: threading.Event | None = None) -> None:
        """Add the time since the last call to what the study has run; with `over`, go on until it is set."""
        while True:
            now = time.monotonic()
            add_seconds(study, now - self._counted)
            self._counted = now
            if over is None or over.wait(CLOCK_SECONDS):
                return

    def _work_in_processes(self, study: optuna.Study) -> None:
        for slot in self._slots:
            self._start(slot)
        reader = StatusReader(self.storage, self.config.name)
        console.live(reader.read, lambda: self._tick(study))
        if self._failure is not None:
            raise self._failure

    def _spec(self, slot: int) -> Any:
        from hpo.workflow.worker import WorkerSpec

        place = self._slots[slot]
        url = self.config.storage or default_storage()
        return WorkerSpec(self.config.name, url, place.device, place.threads, max(self._cores, place.threads))

    def _start(self, slot: int) -> None:
        from hpo.workflow.worker import specification

        self.backend.start(slot, specification(self._spec(slot)), self._slots[slot].threads)

    def _tick(self, study: optuna.Study) -> bool:
        """Look after the workers once; True when all have left."""
        self._count_time(study)
        for ended in self.backend.exits():
            if ended.code:
                self._ended_badly(study, ended)
        if self._failure is not None:
            self.backend.stop()
        return self.backend.running == 0

    def _ended_badly(self, study: optuna.Study, ended: Exit) -> None:
        """A killed process is replaced and its trial goes on elsewhere; an error of hpo's own ends the run."""
        reclaim(self.storage, study, dead_pids=(ended.pid,))
        slot = self._slots[ended.slot]
        finished = len(study.get_trials(deepcopy=False))
        slot.restarts = slot.restarts + 1 if finished == slot.finished_before else 1
        slot.finished_before = finished
        last = _last_line(ended.log)
        if ended.code > 0 or slot.restarts > RESTARTS:
            reason = (
                last
                if ended.code == HpoError.exit_code
                else f"worker {ended.slot} ended with code {ended.code}: {last}"
            )
            self._failure = self._failure or StudyError(f"{reason}\nIts log: {ended.log}")
        else:
            console.warn(f"worker {ended.slot} was killed (signal {-ended.code}); another takes its place.")
            self._start(ended.slot)

    def _stop(self, message: str) -> None:
        console.note(message)
        try:
            gone = self.backend.stop()
        except KeyboardInterrupt:
            gone = self.backend.kill()
        study = _known_study(self.storage, self.config, self.data)
        if study is not None:
            reclaim(self.storage, study, dead_pids=tuple(ended.pid for ended in gone))
            set_phase(study, "stopped")

    def _result(self, study: optuna.Study) -> Result:
        record = study.user_attrs.get("result")
        if record is None:
            raise StudyError(
                f"Study '{study.study_name}' was stopped before its end; the same command goes on with it."
            )
        set_phase(study, "finished")
        return Result(study, record)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it wrote nothing"


def write_reports(study: optuna.Study) -> Path:
    """Write the page, the table and the dashboard's notes of a study; returns the page."""
    from hpo.reporting.dashboard import annotate_study
    from hpo.reporting.report import write_report
    from hpo.reporting.trials_csv import write_trials_csv

    folder = run_folder(study.study_name)
    with console.progress("writing the report"):
        write_report(study, folder / "report.html")
        write_trials_csv(study, folder / "trials.csv")
        annotate_study(study)
    return folder / "report.html"
