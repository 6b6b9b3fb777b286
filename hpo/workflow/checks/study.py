"""Checks of a study before anything is trained: do the models suit it, and how long will it take?"""

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hpo.config.search_space import Categorical, Fixed, Float, Int
from hpo.config.study import StudyConfig
from hpo.config.trial_params import TrialParams
from hpo.config.user_code import no_exit
from hpo.core.format import count, duration
from hpo.errors import ModelError
from hpo.reporting.console import console
from hpo.search.dry_run import dry_run
from hpo.search.factory import build_pruner, build_sampler, is_object
from hpo.search.finite_space import FiniteSpace
from hpo.tasks.metrics.scorer import check_direction
from hpo.training.fine_tune import FineTuning
from hpo.workflow.checks.constraints import apply_constraints
from hpo.workflow.checks.passes import apply_passes
from hpo.workflow.checks.techniques import check_techniques
from hpo.workflow.configure import Source, configure
from hpo.workflow.context import StudyContext, check_remote_checkpoints, describe_data
from hpo.workflow.launch.placement import create_placement
from hpo.workflow.worker.stages import limit_confirm_seconds

TIMED_STEPS = 6
TIMED_SECONDS = 10.0  # enough for one model: a large one on a busy CPU needs minutes for six steps


@dataclass(frozen=True)
class ModelPlan:
    """One candidate as the study will use it. `seconds_per_epoch`: unfrozen, one worker; None where not timed.

    `max_length` is in tokens, or audio samples; None for images.
    """

    model: str
    architecture: str
    parameters: int
    layers: int
    max_length: int | None
    seconds_per_epoch: float | None = None


@dataclass(frozen=True, repr=False)
class StudyCheck:
    """The plan of a valid study, and a forecast of its time. `repr` shows it as a table.

    `sizes` counts the rows of each split, `notes` say what was recognized in the data, created and dropped. `forecast`
    holds seconds by phase: search, confirm, final model.
    """

    name: str
    sizes: Mapping[str, int]
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    models: tuple[ModelPlan, ...]
    forecast: Mapping[str, float]
    warnings: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """The forecast duration of the study."""
        return sum(self.forecast.values())

    def __repr__(self) -> str:
        from hpo.reporting.console.plan_view import plan_parts

        data = {"sizes": self.sizes, "labels": self.labels, "notes": self.notes}
        parts = plan_parts(self.name, data, [asdict(plan) for plan in self.models], self.forecast)
        return console.as_text(*parts, *(f"warning: {line}" for line in self.warnings))

    def show(self) -> None:
        """Print the plan, and the warnings on stderr."""
        data = {"sizes": self.sizes, "labels": self.labels, "notes": self.notes}
        console.show_plan(self.name, data, [asdict(plan) for plan in self.models], self.forecast, self.warnings)


@no_exit()
def check(source: Source, overrides: Sequence[str] = ()) -> StudyCheck:
    """Validate a study without training it: read the data, load the models, time a few steps of each.

    `source` and `overrides` are those of `hpo.run`. Nothing is written to the database. Raises `HpoError` for every
    mistake.
    """
    config = configure(source, overrides)
    placement = create_placement(config)
    placement.backend.kill()  # only its availability is checked
    with console.progress("reading the data"):
        context = StudyContext.create(config, placement.execution_here())
        check_direction(context.scorer, config.direction)
        check_remote_checkpoints(config)
        context, dropped = apply_constraints(context)
        plans = inspect_models(context)
        context, doubtful = apply_passes(context)
    with console.progress("timing each model on the data"):
        plans = time_models(context, [plan for plan in plans if plan.model in context.config.labels])
    times = forecast(context, plans, len(placement.slots))
    return StudyCheck(
        name=config.name,
        sizes=describe_data(context.data).sizes,
        labels=tuple(context.data.label_names),
        notes=(*context.data.summary, *context.data.notes),
        models=tuple(plans),
        forecast=times,
        warnings=(*dropped, *doubtful, *study_warnings(context), *too_little_time(context, plans, times)),
    )


def inspect_models(context: StudyContext) -> list[ModelPlan]:
    """Load every candidate and hold it against the study. Raises `ModelError` or `ConfigError` for what cannot work."""
    config = context.config
    _dry_run_search(config)
    plans = []
    for label in context.config.labels:
        candidate = context.candidates[label]
        if context.config.model_ref(label).source_prefix and context.task.generation is None:
            raise ModelError(
                f"{label}: source_prefix is for models that summarize or translate, not {context.task.name}."
            )
        objection = context.task.check_model(candidate.model, candidate.processor)
        if objection:
            raise ModelError(f"{label}: {objection}.")
        plan = ModelPlan(
            model=label,
            architecture=type(candidate.model).__name__,
            parameters=candidate.parameters,
            layers=candidate.stack.count,
            max_length=context.max_length(label) or None,
        )
        plans.append(plan)
    check_techniques(context)
    context.first_trials()
    return plans


def _dry_run_search(config: StudyConfig) -> None:
    """Try the sampler and the pruner on the search space. Objects are not tried: they would learn from it."""
    if is_object(config.sampler) or is_object(config.pruner):
        return
    space, models = config.search_space, config.labels
    sampler = build_sampler(config.sampler, space.conditional, config.seed, FiniteSpace.of(space, models))
    dry_run(sampler, build_pruner(config.pruner), space, models)


def study_warnings(context: StudyContext) -> list[str]:
    """Return warnings about settings that are allowed and probably not intended."""
    config, rows = context.config, len(context.data.train)
    found = list(config.search_space.notes)
    finite = FiniteSpace.of(config.search_space, config.labels)
    if finite is not None and len(finite) < config.budget.max_trials:
        found.append(
            f"search_space: it has only {count(len(finite), 'configuration')}; the search ends when all were tried, "
            f"before budget.max_trials: {config.budget.max_trials}."
        )
    batch = config.search_space.parameters.get("batch_size")
    largest = max((int(value or 0) for value in batch.extremes()), default=0) if batch is not None else 32
    if largest > rows:
        found.append(f"batch_size: up to {largest}, more than the {rows} training rows: such a batch holds them all.")
    queue, most = context.first_trials(), config.budget.max_trials
    found += [queue.note] * bool(queue.note and not context.ranked)  # else the ranking decides the order
    first = len(queue.points)
    if first >= most:
        left_out = f", and {count(first - most, 'of them is', 'of them are')} not tried" if first > most else ""
        found.append(
            f"budget.max_trials: the {count(first, 'first trial')} use up {most}: nothing is sampled{left_out}."
        )
    return found


def time_models(context: StudyContext, plans: list[ModelPlan]) -> list[ModelPlan]:
    """Time a few unfrozen steps of each candidate on the real data; returns the plans with `seconds_per_epoch`."""
    timed = []
    for plan in plans:
        params = TrialParams(model=plan.model, epochs=1, batch_size=min(32, len(context.data.train)))
        with tempfile.TemporaryDirectory() as folder:
            run = FineTuning(context.plan(params, context.config.seed, Path(folder)))
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


def forecast(context: StudyContext, plans: list[ModelPlan], workers: int) -> dict[str, float]:
    """Seconds by phase, from the timed models: an estimate to plan by, not a promise.

    Freezing and pruning are taken to halve the search's full cost, as successive halving does on average.
    """
    per_epoch = statistics.fmean(plan.seconds_per_epoch or 0.0 for plan in plans)
    final = per_epoch * _typical_epochs(context) * 1.15  # evaluation
    full = final * max(1, len(context.data.folds))
    budget, wanted = context.config.budget, context.config.confirm
    jobs = min(wanted.top, budget.max_trials) * wanted.seeds
    confirm = jobs * full / min(workers, jobs)
    search = budget.max_trials * full * 0.5 / workers
    if budget.max_hours is not None:
        hours = budget.max_hours * 3600
        confirm = limit_confirm_seconds(confirm, full, hours)
        search = min(search, max(0.0, hours - confirm - final))
    return {"search": search, "confirm": confirm, "final model": final}


def too_little_time(context: StudyContext, plans: list[ModelPlan], times: Mapping[str, float]) -> list[str]:
    """A warning where `budget.max_hours` leaves the search less than a trial of the quickest model takes."""
    hours, trial = context.config.budget.max_hours, times["final model"] * max(1, len(context.data.folds))
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


def _typical_epochs(context: StudyContext) -> float:
    parameter: Any = context.config.search_space.parameters.get("epochs")
    match parameter:
        case Int() | Float():
            return (parameter.low + parameter.effective_high) / 2
        case Categorical():
            return statistics.fmean(float(choice or 0) for choice in parameter.choices)
        case Fixed():
            return float(parameter.value or 0)
    return TrialParams.model_fields["epochs"].default
