"""The three stages of a study, each an Optuna study in the same database, so that all runs share one mechanism.

- search: the user's study; each trial samples a configuration and may be pruned.
- confirm: the best few configurations again on fresh seeds; trial n runs job n of a fixed list.
- final: one trial, the winner's training on all rows that may be trained on.

So every run of `FineTuning` is a leased trial: counted exactly, resumed when its worker dies, shown in the dashboard.
"""

import heapq
import statistics
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpo.config.constraints import Constraints, Footprint, smallest_footprint
from hpo.config.study import StudyConfig
from hpo.core.direction import loss_sign
from hpo.core.paths import folder_name
from hpo.errors import StudyError
from hpo.storage.records.final_model import ConfirmedTrial
from hpo.storage.records.study import StudyRecord, complete_trials, direction_of, pruned_trials
from hpo.storage.records.trial import TrialRecord

CONFIRM_SHARE = 0.2  # of a study's hours, at most: with few hours, more trials gain more than six more runs
FIRST_TRIAL = "first trial"  # the origin of trials that were queued before the search
FINAL_SECONDS = 2.0  # for the interval on test, a baseline and the files of the final model, with small models


@dataclass(frozen=True)
class ConfirmJob:
    """One run of the confirm stage: a configuration of the search, by its trial number, on a fresh seed."""

    trial: int
    seed: int


def is_idle(study: optuna.Study) -> bool:
    """Return whether no trial of `study` is running."""
    return not study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def best_distinct_trials(study: optuna.Study, top: int) -> list[FrozenTrial]:
    """Return the best `top` trials with different resolved parameters. Raises `StudyError` for none.

    They are complete. Where none is, because the hours ended first, they are the best of the pruned ones: confirming
    trains them fully, so that a short budget still ends with a model.
    """
    chosen: list[FrozenTrial] = []
    params: list[dict[str, object]] = []
    for trial in complete_trials(study) or pruned_trials(study):
        record = TrialRecord.of(trial)
        own = record.params
        if record.is_resolved and own not in params:  # else added by another program, without a configuration of hpo's
            chosen.append(trial)
            params.append(own)
    if not chosen:
        raise StudyError(
            f"No trial of '{study.study_name}' has a score, so there is nothing to confirm. `hpo status` shows the "
            "failures; once their cause is corrected, `hpo run … --retry-failed` runs them again."
        )
    return chosen[:top]


def confirm_jobs(study: optuna.Study, config: StudyConfig) -> list[ConfirmJob]:
    """Return the runs of the confirm stage: each of the best configurations on each fresh seed, best first.

    The list depends on the finished search alone, so every worker derives the same one.
    """
    best = best_distinct_trials(study, config.confirm.top)
    seeds = range(config.seed + 1, config.seed + 1 + config.confirm.seeds)
    return [ConfirmJob(trial.number, seed) for seed in seeds for trial in best]


def confirm_name(study: optuna.Study, jobs: list[ConfirmJob], refit: str) -> str:
    """Return the confirm study's name: other jobs (after more trials) are another study.

    So is one whose models are kept, with `refit: none`.
    """
    kept = "-kept" if refit == "none" else ""
    trials = "-".join(str(number) for number in dict.fromkeys(job.trial for job in jobs))
    return f"{study.study_name}/confirm-{trials}-x{len({job.seed for job in jobs})}{kept}"


def final_name(confirm: optuna.Study, winner: int, keep_adapter: bool = False) -> str:
    """Return the final study's name: one for each winner of each confirmation, with and without its adapter."""
    return f"{confirm.study_name}/final-{winner}{'-adapter' if keep_adapter else ''}"


def rank_confirmed(
    search: optuna.Study, confirm: optuna.Study, jobs: list[ConfirmJob], constraints: Constraints
) -> list[ConfirmedTrial]:
    """Return the confirmed configurations, best mean first, those that exceed the constraints last.

    A configuration whose runs all failed is left out. Raises `StudyError` when there is no winner.
    """
    values: dict[int, dict[int, float]] = {job.trial: {} for job in jobs}
    footprints: dict[int, list[Footprint]] = {job.trial: [] for job in jobs}
    for trial in confirm.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        job, footprint = jobs[trial.number], TrialRecord.of(trial).footprint
        values[job.trial][job.seed] = float(trial.value or 0.0)
        if footprint is not None:
            footprints[job.trial].append(footprint)
    trials = {trial.number: trial for trial in search.get_trials(deepcopy=False)}
    found = [
        ConfirmedTrial(
            trial=number,
            params=TrialRecord.of(trials[number]).params,
            search_value=float(trials[number].value or 0.0),
            values=by_seed,
            footprint=(footprint := smallest_footprint(footprints[number])),
            violations=constraints.violations(footprint) if footprint else "",
        )
        for number, by_seed in values.items()
        if by_seed
    ]
    if not found:
        raise StudyError(f"All confirming runs of '{search.study_name}' failed; see `hpo status`.")
    if all(each.violations for each in found):
        reasons = "\n  ".join(f"trial {each.trial} ({each.params['model']}): {each.violations}" for each in found)
        raise StudyError(f"constraints: every confirmed model exceeds them.\n  {reasons}")
    sign = loss_sign(direction_of(search))
    return sorted(found, key=lambda each: (bool(each.violations), sign * each.mean))


def has_confirmed_trial(confirm: optuna.Study, constraints: Constraints) -> bool:
    """Return whether a configuration within the constraints has a complete confirming run."""
    measured = [TrialRecord.of(trial).footprint for trial in complete_trials(confirm)]
    return any(footprint is None or not constraints.violations(footprint) for footprint in measured)


def best_first_trial(search: optuna.Study) -> FrozenTrial | None:
    """Return the best complete trial among the configurations that were queued before the search."""
    return next((t for t in complete_trials(search) if TrialRecord.of(t).origin == FIRST_TRIAL), None)


def stage_folder(study: optuna.Study) -> str:
    """Return a stage's part of the names of its trials' checkpoint folders."""
    return folder_name(study.study_name)


@dataclass(frozen=True)
class ReservedSeconds:
    """Seconds that a search leaves to the stages after it."""

    confirm: float
    final: float
    run: float = 0.0  # the longest confirming run


def limit_confirm_seconds(confirm: float, run: float, budget: float) -> float:
    """Return how many of the seconds `confirm` confirming may use: `CONFIRM_SHARE` of `budget`, at least one `run`."""
    return min(confirm, max(CONFIRM_SHARE * budget, run))


def reserve_seconds(search: optuna.Study, config: StudyConfig, workers: int, budget: float) -> ReservedSeconds:
    """Return what to reserve of the `budget` (seconds) for confirming and the final model; 0 before a complete trial.

    For confirming: the runs of the best configurations so far, each by the first free worker, or `CONFIRM_SHARE` of
    the budget where that is less, but one run. For the final model: the longest of these runs, with the validation
    rows added, and what measuring and writing it takes.
    """
    done = [
        (sum(record.seconds.values()), trial.duration.total_seconds(), record.attempt)
        for trial in complete_trials(search)
        if trial.duration and (record := TrialRecord.of(trial)).seconds
    ]
    if not done:
        return ReservedSeconds(0.0, 0.0)
    # What a trial takes beside training: the median, since a process's first trial includes what it does once. The
    # duration of a trial that was resumed includes its waiting.
    beside = statistics.median([lasted - trained for trained, lasted, attempt in done if attempt == 1] or [0.0])
    took = [trained + beside for trained, _, _ in done[: config.confirm.top]]
    free = [0.0] * max(workers, 1)
    for seconds in took * config.confirm.seeds:
        heapq.heapreplace(free, free[0] + seconds)
    confirm = limit_confirm_seconds(max(free), max(took), budget)
    sizes = StudyRecord.of(search).data.sizes
    rows = 1 + sizes.get("validation", 0) / sizes["train"] if "train" in sizes else 1  # with folds, a run is several
    return ReservedSeconds(confirm, (rows if config.refit != "none" else 0) * max(took) + FINAL_SECONDS, max(took))
