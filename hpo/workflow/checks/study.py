"""What can be told before anything is trained: the models, whether they suit the task, and how long it will take."""

import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hpo.config.search_space import Categorical, Fixed, Float, Int
from hpo.config.study import load_config
from hpo.config.trial_params import TrialParams
from hpo.core.format import count, duration
from hpo.errors import ModelError
from hpo.reporting.console import console
from hpo.search.factory import build_pruner, build_sampler
from hpo.tasks.metrics.scorer import check_direction
from hpo.training.fine_tune import FineTuning
from hpo.workflow.checks.constraints import keep_to_constraints
from hpo.workflow.checks.techniques import check_techniques
from hpo.workflow.context import Workbench, describe_data
from hpo.workflow.launch.placement import place_study
from hpo.workflow.stages import within_share

TIMED_STEPS = 6
TIMED_SECONDS = 10.0  # enough for one model: a large one on a busy CPU needs minutes for six steps


@dataclass(frozen=True)
class ModelPlan:
    """One candidate as the study will use it. `seconds_per_epoch`: unfrozen, one worker; None where not timed.

    `max_length` is in tokens, or samples of sound; None for images.
    """

    model: str
    architecture: str
    parameters: int
    layers: int
    max_length: int | None
    seconds_per_epoch: float | None = None


def check_study(source: str | os.PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()) -> None:
    """Validate a study without training it, and show the plan with a forecast of its time. Raises `HpoError`."""
    config = load_config(source, overrides)
    placement = place_study(config)
    placement.backend.kill()  # that it can be had is all that is asked of it here
    with console.progress("reading the data"):
        bench = Workbench(config, placement.execution_here())
        check_direction(bench.scorer, config.direction)
        if bench.mirror:
            bench.mirror.check()
        dropped = keep_to_constraints(bench)
    with console.progress("timing each model on the data"):
        plans = time_models(bench, inspect_models(bench))
    times = forecast(bench, plans, len(placement.places))
    told = [*dropped, *study_warnings(bench), *too_little_time(bench, plans, times)]
    console.show_plan(config.name, describe_data(bench.data), [asdict(plan) for plan in plans], times, told)


def inspect_models(bench: Workbench) -> list[ModelPlan]:
    """Load every candidate and hold it against the study. Raises `ModelError` or `ConfigError` for what cannot work."""
    build_sampler(bench.config.sampler, bench.config.search_space.conditional, bench.config.seed)
    build_pruner(bench.config.pruner)
    plans = []
    for label in bench.config.labels:
        candidate = bench.candidates[label]
        if bench.config.model_ref(label).source_prefix and bench.task.generation is None:
            raise ModelError(
                f"{label}: source_prefix is for models that summarize or translate, not {bench.task.name}."
            )
        objection = bench.task.check_model(candidate.model, candidate.processor)
        if objection:
            raise ModelError(f"{label}: {objection}.")
        plan = ModelPlan(
            model=label,
            architecture=type(candidate.model).__name__,
            parameters=candidate.parameters,
            layers=candidate.stack.count,
            max_length=bench.max_length(label) or None,
        )
        plans.append(plan)
    check_techniques(bench)
    bench.first_trials()
    return plans


def study_warnings(bench: Workbench) -> list[str]:
    """What a person should hear although it is allowed."""
    config, rows = bench.config, len(bench.data.train)
    found = list(config.search_space.notes)
    batch = config.search_space.parameters.get("batch_size")
    largest = max((int(value or 0) for value in batch.extremes()), default=0) if batch is not None else 32
    if largest > rows:
        found.append(f"batch_size: up to {largest}, more than the {rows} training rows: such a batch holds them all.")
    queue, most = bench.first_trials(), config.budget.max_trials
    found += [queue.note] * bool(queue.note and not bench.ranked)  # else the ranking says what goes first
    first = len(queue.points)
    if first >= most:
        left_out = f", and {count(first - most, 'of them is', 'of them are')} not tried" if first > most else ""
        found.append(
            f"budget.max_trials: the {count(first, 'first trial')} use up {most}: nothing is sampled{left_out}."
        )
    return found


def time_models(bench: Workbench, plans: list[ModelPlan]) -> list[ModelPlan]:
    """Time a few unfrozen steps of each candidate on the real data; returns the plans with `seconds_per_epoch`."""
    timed = []
    for plan in plans:
        params = TrialParams(model=plan.model, epochs=1, batch_size=min(32, len(bench.data.train)))
        with tempfile.TemporaryDirectory() as folder:
            run = FineTuning(bench.plan(params, bench.config.seed, Path(folder)))
            timed.append(replace(plan, seconds_per_epoch=_seconds_per_epoch(run)))
    return timed


def _seconds_per_epoch(run: FineTuning) -> float:
    """The median of a few steps after a first one that warms up, over an epoch."""
    steps = run.steps()
    seconds: list[float] = []
    for _ in range(TIMED_STEPS + 1):
        started = time.perf_counter()
        if next(steps, None) is None and seconds:
            break
        seconds.append(time.perf_counter() - started)
        if len(seconds) > 1 and sum(seconds) > TIMED_SECONDS:
            break
    return statistics.median(seconds[1:] or seconds) * run.plan.steps_per_epoch


def forecast(bench: Workbench, plans: list[ModelPlan], workers: int) -> dict[str, float]:
    """Seconds by phase, from the timed models: an estimate to plan by, not a promise.

    Freezing and pruning are taken to halve the search's full cost, as successive halving does on average.
    """
    per_epoch = statistics.fmean(plan.seconds_per_epoch or 0.0 for plan in plans)
    final = per_epoch * _typical_epochs(bench) * 1.15  # evaluation
    full = final * max(1, len(bench.data.folds))
    budget, wanted = bench.config.budget, bench.config.confirm
    jobs = min(wanted.top, budget.max_trials) * wanted.seeds
    confirm = jobs * full / min(workers, jobs)
    search = budget.max_trials * full * 0.5 / workers
    if budget.max_hours is not None:
        hours = budget.max_hours * 3600
        confirm = within_share(confirm, full, hours)
        search = min(search, max(0.0, hours - confirm - final))
    return {"search": search, "confirm": confirm, "final model": final}


def too_little_time(bench: Workbench, plans: list[ModelPlan], times: Mapping[str, float]) -> list[str]:
    """A warning where `budget.max_hours` leaves the search less than a trial of the quickest model takes."""
    hours, trial = bench.config.budget.max_hours, times["final model"] * max(1, len(bench.data.folds))
    seconds = [plan.seconds_per_epoch or 0.0 for plan in plans]
    quickest = trial * min(seconds) / max(statistics.fmean(seconds), 1e-9)
    if hours is None or times["search"] >= quickest:
        return []
    kept = duration(times["confirm"] + times["final model"])
    return [
        f"budget.max_hours: of {duration(hours * 3600)} confirming and the final model take about {kept}, which leaves "
        f"the search {duration(times['search'])}; a trial of the quickest model takes about {duration(quickest)}. Give "
        "more hours or fewer epochs."
    ]


def _typical_epochs(bench: Workbench) -> float:
    parameter: Any = bench.config.search_space.parameters.get("epochs")
    match parameter:
        case Int() | Float():
            return (parameter.low + parameter.effective_high) / 2
        case Categorical():
            return statistics.fmean(float(choice or 0) for choice in parameter.choices)
        case Fixed():
            return float(parameter.value or 0)
    return TrialParams.model_fields["epochs"].default
