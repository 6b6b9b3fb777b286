"""Replays one search on a table of recorded curves, with hpo's samplers and pruners, in simulated time."""

import heapq
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from recorded import Run, Table

from hpo.search.factory import build_pruner, build_sampler
from hpo.search.ranking import RankedSampler
from hpo.storage.records.trial import CurvePoint, TrialRecord

TPE, RANDOM = {"name": "tpe"}, {"name": "RandomSampler"}
FIRST_TRIALS = "hpo, first trials"
BY_STEPS = {"name": "SuccessiveHalvingPruner", "min_resource": 1, "reduction_factor": 2}
# The sampler and pruner of each method, as in a study file.
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "random": (RANDOM, {"name": "none"}),
    "tpe": (TPE, {"name": "none"}),
    "tpe+median": (TPE, {"name": "MedianPruner"}),
    "tpe+hyperband": (TPE, {"name": "HyperbandPruner"}),
    "tpe+halving": (TPE, BY_STEPS),
    "tpe+shares": (TPE, {"name": "successive_halving"}),
    "gp": ({"name": "GPSampler"}, {"name": "none"}),
    "hpo": ({}, {}),  # the defaults
    FIRST_TRIALS: ({}, {}),  # and what hpo has before the first trial: a ranking of the models, good defaults
}
POINTS = 96  # of a regret curve, evenly spaced over the compute
MAX_TRIALS = 400  # of a search: trials that are pruned at their first rung cost next to nothing
MAX_SHARE = 0.25  # of the recorded trainings that a search may spend: with more, random search finds the best


class Case(NamedTuple):
    """One search to replay."""

    family: str
    table: str
    method: str
    workers: int
    seed: int


class Search:
    """One search: an in-memory study, its workers, and the values of its complete trials over time."""

    def __init__(self, table: Table, study: optuna.Study) -> None:
        self.table = table
        self.study = study
        self.now = 0.0
        self.found: list[tuple[float, float]] = []  # the time and the value of each complete trial
        self._numbers = iter(range(MAX_TRIALS))
        self._used: set[int] = set()  # rows of the table
        self.overhead = 0.0  # CPU seconds of the sampler, the pruner and the storage

    def run(self, workers: int, seconds: float) -> None:
        """Run the workers for so many simulated seconds each."""
        queue = [(0.0, number, self._work()) for number in range(workers)]
        while queue:
            self.now, number, work = heapq.heappop(queue)
            if self.now > seconds:
                return
            started = time.process_time()
            duration = next(work, None)
            self.overhead += time.process_time() - started
            if duration is not None:
                heapq.heappush(queue, (self.now + duration, number, work))

    def _work(self) -> Iterator[float]:
        """Run one trial after another; yield the seconds until the worker's next event."""
        for _ in self._numbers:
            trial = self.study.ask()
            run = self.table.run_of(trial, self._used)
            TrialRecord(rungs=run.steps[-1]).save(trial)
            yield from self._train(trial, run)

    def _train(self, trial: optuna.Trial, run: Run) -> Iterator[float]:
        """Report the rungs of a run until it ends or is pruned; yield the seconds until each."""
        passed = 0.0
        state = TrialState.FAIL if run.failed else TrialState.COMPLETE
        for rung in range(len(run.steps)):
            yield run.seconds[rung] - passed
            passed = run.seconds[rung]
            if rung == len(run.values):
                TrialRecord(failure="Diverged").save(trial)
                break
            trial.report(run.values[rung], run.steps[rung])
            if rung + 1 < len(run.seconds) and trial.should_prune():
                state = TrialState.PRUNED
                break
        curve = zip(run.steps[: rung + 1], run.seconds, strict=False)
        points = (CurvePoint(step=step, epoch=step, train_loss=0, seconds=seconds) for step, seconds in curve)
        TrialRecord(curve=tuple(points)).save(trial)
        value = run.values[-1] if state == TrialState.COMPLETE else None
        self.study.tell(trial, value, state)
        if value is not None:
            self.found.append((self.now, value))


def replay(
    table: Table, case: Case, trainings: float, prepare: Callable[[optuna.Study], None] = lambda study: None
) -> dict[str, Any]:
    """Run one search with the compute of `trainings` full trainings, at most `MAX_SHARE` of the table's.

    Return its regret over compute, its counts of trials and the CPU milliseconds of a trial. `prepare` is called with
    the study before its first trial.
    """
    sampler, pruner = METHODS[case.method]
    study = optuna.create_study(
        study_name="-".join(map(str, case)),  # Hyperband assigns brackets by the study's name
        storage=InMemoryStorage(),
        direction=table.direction,
        sampler=build_sampler(sampler, conditional=table.conditional, seed=case.seed),
        pruner=build_pruner(pruner),
    )
    if case.method == FIRST_TRIALS:
        study.sampler = RankedSampler(study.sampler, table.order, case.seed)
        for run in table.first_trials:
            study.enqueue_trial(run.params)
    prepare(study)
    search = Search(table, study)
    seconds = min(trainings, MAX_SHARE * len(table.runs)) * table.mean_seconds / case.workers
    search.run(case.workers, seconds)
    regret, regrets, found = 1.0, [], iter([*search.found, (math.inf, 0.0)])
    when, value = next(found)
    for point in range(1, POINTS + 1):
        while when <= seconds * point / POINTS:
            regret = min(regret, table.regret(value))
            when, value = next(found)
        regrets.append(round(regret, 5))
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return {
        "case": case,
        "regrets": regrets,
        "trials": len(states),
        "complete": states.count(TrialState.COMPLETE),
        "failed": states.count(TrialState.FAIL),
        "overhead_ms": round(1000 * search.overhead / len(states), 1),
    }
