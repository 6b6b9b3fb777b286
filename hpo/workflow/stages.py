"""The three stages of a study, each an Optuna study in the same database, so that all runs share one machinery.

- search: the person's study; each trial samples a configuration and may be pruned.
- confirm: the best few configurations again on fresh seeds; trial n carries out job n of a fixed list.
- final: one trial, the winner's training on all that may be trained on.

Every run of `FineTuning` is thus a leased trial: counted exactly, resumed when its worker dies, seen in the dashboard.
"""

import heapq
import math
import statistics
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpo.config.constraints import Constraints, Footprint, smallest_footprint
from hpo.config.study import StudyConfig
from hpo.core.direction import loss_sign
from hpo.core.paths import folder_name
from hpo.errors import StudyError
from hpo.storage.records import direction_of, params_of
from hpo.storage.status import ATTEMPT

CONFIRM_SHARE = 0.2  # of a study's hours, at most: who has few of them has better uses for them than six more runs
FINAL_SECONDS = 2.0  # for the final model's interval on test, a baseline and the files: as small models take


@dataclass(frozen=True)
class Job:
    """One run of the confirm stage: a configuration of the search, by its trial number, on a fresh seed."""

    trial: int
    seed: int


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The complete trials of a study, best first; of equals the earlier one."""
    sign = loss_sign(direction_of(study))
    complete = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if t.value is not None]
    return sorted(complete, key=lambda trial: (sign * float(trial.value or 0.0), trial.number))


def is_idle(study: optuna.Study) -> bool:
    """Whether no trial of `study` is running."""
    return not study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def distinct_best(study: optuna.Study, top: int) -> list[FrozenTrial]:
    """The best `top` complete trials of different resolved parameters. Raises `StudyError` when there is none."""
    chosen: list[FrozenTrial] = []
    for trial in finished_trials(study):
        if all(params_of(trial) != params_of(other) for other in chosen):
            chosen.append(trial)
    if not chosen:
        raise StudyError(
            f"No trial of '{study.study_name}' was completed, so there is nothing to confirm. See `hpo status` for the "
            "failures; more trials: `hpo run … --trials N`."
        )
    return chosen[:top]


def confirm_jobs(study: optuna.Study, config: StudyConfig) -> list[Job]:
    """What the confirm stage runs: each of the best configurations on each fresh seed, the best first.

    The list depends on the finished search alone, so every worker derives the same one.
    """
    best = distinct_best(study, config.confirm.top)
    seeds = range(config.seed + 1, config.seed + 1 + config.confirm.seeds)
    return [Job(trial.number, seed) for seed in seeds for trial in best]


def confirm_name(study: optuna.Study, jobs: list[Job]) -> str:
    """The confirm study's name: another set of jobs (after more trials) is another study."""
    trials = "-".join(str(number) for number in dict.fromkeys(job.trial for job in jobs))
    return f"{study.study_name}/confirm-{trials}-x{len({job.seed for job in jobs})}"


def final_name(confirm: optuna.Study, winner: int) -> str:
    """The final study's name: one for each winner of each confirmation."""
    return f"{confirm.study_name}/final-{winner}"


@dataclass(frozen=True)
class Confirmed:
    """A configuration and its scores on fresh seeds."""

    trial: int
    params: dict[str, Any]
    values: dict[int, float]  # by seed
    search_value: float
    footprint: Footprint | None = None  # of the trained model, the least of its runs; None where it was not measured
    broken: str = ""  # why it cannot be the winner: what it takes is more than `constraints` allow

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values.values()) if self.values else math.nan

    @property
    def std(self) -> float:
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "trial": self.trial,
            "params": self.params,
            "values": {str(seed): value for seed, value in self.values.items()},
            "mean": self.mean,
            "std": self.std,
            "search_value": self.search_value,
            "footprint": self.footprint.model_dump() if self.footprint else None,
            "broken": self.broken,
        }


def confirmed(
    search: optuna.Study, confirm: optuna.Study, jobs: list[Job], constraints: Constraints
) -> list[Confirmed]:
    """The confirmed configurations, best mean first, those that break the constraints last.

    One whose runs all failed is left out. Raises `StudyError` where no winner is left.
    """
    values: dict[int, dict[int, float]] = {job.trial: {} for job in jobs}
    footprints: dict[int, list[Footprint]] = {job.trial: [] for job in jobs}
    for trial in confirm.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        job = jobs[trial.number]
        values[job.trial][job.seed] = float(trial.value or 0.0)
        if "footprint" in trial.user_attrs:
            footprints[job.trial].append(Footprint(**trial.user_attrs["footprint"]))
    trials = {t.number: t for t in search.get_trials(deepcopy=False)}
    found = []
    for number, by_seed in values.items():
        if by_seed:
            trial, footprint = trials[number], smallest_footprint(footprints[number])
            broken = constraints.violations(footprint) if footprint else ""
            value, params = float(trial.value or 0.0), params_of(trial)
            found.append(Confirmed(number, params, by_seed, value, footprint, broken))
    sign = loss_sign(direction_of(search))
    if not found:
        raise StudyError(f"All confirming runs of '{search.study_name}' failed; see `hpo status`.")
    if all(c.broken for c in found):
        told = "\n  ".join(f"trial {c.trial} ({c.params['model']}): {c.broken}" for c in found)
        raise StudyError(f"constraints: none of the confirmed models keeps to them.\n  {told}")
    return sorted(found, key=lambda c: (bool(c.broken), sign * c.mean))


def is_one_confirmed(confirm: optuna.Study, constraints: Constraints) -> bool:
    """Whether a configuration that keeps to the constraints has a complete confirming run."""
    measured = [trial.user_attrs.get("footprint") for trial in finished_trials(confirm)]
    return any(footprint is None or not constraints.violations(Footprint(**footprint)) for footprint in measured)


def best_default(search: optuna.Study) -> FrozenTrial | None:
    """The best complete trial among the configurations tried first."""
    return next((t for t in finished_trials(search) if t.user_attrs.get("origin") == "first trial"), None)


def stage_folder(study: optuna.Study) -> str:
    """A stage's part in the names of its trials' checkpoint folders."""
    return folder_name(study.study_name)


@dataclass(frozen=True)
class Reserve:
    """Seconds that a search leaves to the stages after it."""

    confirm: float
    final: float
    run: float = 0.0  # one confirming run, of the longest


def within_share(confirm: float, run: float, hours_in_seconds: float) -> float:
    """Of the seconds `confirm` those that confirming gets: at most `CONFIRM_SHARE` of the hours, at least a `run`."""
    return min(confirm, max(CONFIRM_SHARE * hours_in_seconds, run))


def reserve(search: optuna.Study, config: StudyConfig, workers: int, hours_in_seconds: float) -> Reserve:
    """What to keep back for confirming and the final model, by how long the best trained; 0 before the first.

    The confirming runs of what is best so far, each by the worker that is free first, or `CONFIRM_SHARE` of the hours
    where that is less, but one run. Then the longest of them as the final model, which trains on the rows of
    validation too, and is measured and written.
    """
    done = [
        (sum(t.user_attrs["seconds"].values()), t.duration.total_seconds(), t.user_attrs.get(ATTEMPT, 1))
        for t in finished_trials(search)
        if t.duration and "seconds" in t.user_attrs
    ]
    if not done:
        return Reserve(0.0, 0.0)
    # The median: a process's first trial also lasts as long as what it does once. One that went on later, as it waited.
    beside = statistics.median([lasted - trained for trained, lasted, attempt in done if attempt == 1] or [0.0])
    took = [trained + beside for trained, _, _ in done[: config.confirm.top]]
    free = [0.0] * max(workers, 1)
    for seconds in took * config.confirm.seeds:
        heapq.heapreplace(free, free[0] + seconds)
    confirm = within_share(max(free), max(took), hours_in_seconds)
    sizes = search.user_attrs["data"]["sizes"]
    rows = 1 + sizes.get("validation", 0) / sizes["train"] if "train" in sizes else 1  # folds: a run is several
    return Reserve(confirm, (rows if config.refit != "none" else 0) * max(took) + FINAL_SECONDS, max(took))
