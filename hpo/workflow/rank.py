"""Ranks the candidate models on the user's data before anything is trained: `hpo rank`, and in `hpo run`."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from hpo.config.user_code import no_exit
from hpo.core.format import score
from hpo.data.splits.subsample import sample_rows
from hpo.errors import ConfigError, OutOfMemory
from hpo.reporting.console import console
from hpo.search.ranking import best_first
from hpo.storage.records.study import RankedModel, Ranking
from hpo.training.batches.features import IGNORE_INDEX, Features, Indices
from hpo.training.execution import all_cores
from hpo.training.models.layers import layer_parts
from hpo.training.ranking.layer_features import extract_layer_features
from hpo.training.ranking.transferability import transferability
from hpo.workflow.checks.constraints import apply_constraints
from hpo.workflow.checks.study import inspect_models
from hpo.workflow.configure import Source, configure
from hpo.workflow.context import StudyContext
from hpo.workflow.launch.placement import create_placement

ROWS = 2000
TOKENS = 5000  # labeled ones, where each token has a label
# Operations of the largest model's pass, which limit the time on long texts: 20 s at the 460 GFLOP/s that two cores
# with AMX reached. 2,000 texts of 30 tokens cost a model of BERT-base's size 1e13.
WORK = {"cpu": 1e13, "cuda": 1e15}
MIN_ROWS = 200


@no_exit()
def rank(source: Source, overrides: Sequence[str] = ()) -> Ranking:
    """Rank the models of a study, which need not have been run, by their frozen features of its data.

    `source` and `overrides` are those of `hpo.run`. Raises `ConfigError` where the task has no ranking, and `HpoError`
    for every other mistake.
    """
    config = configure(source, overrides)
    placement = create_placement(config)
    placement.backend.kill()  # nothing runs elsewhere
    with console.progress("reading the data"):
        context = StudyContext.create(config, placement.execution_here())
    with console.progress("checking the models"):
        context, dropped = apply_constraints(context)
        for line in dropped:
            console.note(line)
        inspect_models(context)
    reason = context.why_no_ranking()
    if reason:
        raise ConfigError(f"There is nothing to rank: {reason}.")
    return rank_models(context)


def rank_if_wanted(context: StudyContext) -> Ranking | None:
    """Rank the models and print the ranking in a line; None where the study has no ranking, or switches it off."""
    if not context.ranked:
        return None
    ranking = rank_models(context)
    shown = ", ".join(f"{m.model} {score(m.score)}" for m in ranking.models)
    console.note(f"  models ranked by their frozen features, tried in this order: {shown}")
    queue = context.first_trials(ranking.order)
    if queue.note:
        console.note(f"  {queue.note}")
    return ranking


def rank_models(context: StudyContext) -> Ranking:
    """Score each candidate by its frozen features of the same training rows, with a progress bar.

    A model that does not fit in memory gets no score. The validation split is not used.
    """
    labels = context.config.labels
    with console.progress(f"ranking {len(labels)} models on the data", total=len(labels)) as advance:
        rows = _rows(context)
        with all_cores(context.execution):  # the study's workers are idle
            scored = [_score(context, label, rows, advance) for label in labels]
    return Ranking(rows=len(rows), models=best_first(scored))


def _score(context: StudyContext, label: str, rows: Indices, advance: Callable[..., None]) -> RankedModel:
    candidate, started = context.candidates[label], time.perf_counter()
    found, reason = None, ""
    try:
        states = extract_layer_features(candidate, _features(context, label), rows, context.execution)
        found = transferability(states.layers, states.labels, states.inputs)
    except OutOfMemory as error:
        reason = str(error)
    advance()
    seconds = round(time.perf_counter() - started, 2)
    return RankedModel(
        model=label,
        parameters=candidate.parameters,
        layers=candidate.stack.count,
        score=found,
        seconds=seconds,
        reason=reason,
    )


def _features(context: StudyContext, label: str) -> Features:
    """Return the features of at most `ROWS` training rows, sampled by class where there are more."""
    rows = len(context.data.train)
    if rows <= ROWS:
        return context.features("train", label)
    sampled = sample_rows(context.task.strata(context.data.train), context.config.seed, ROWS / rows)
    return context.features("train", label, sampled)


def _rows(context: StudyContext) -> Indices:
    """Return the inputs that all models are scored on: evenly spaced, as many as the largest model's cost allows."""
    everything = {label: _features(context, label) for label in context.config.labels}
    inputs = min(len(features) for features in everything.values())
    work = max(_work(context, label, features) for label, features in everything.items())
    device = "cuda" if context.execution.device.startswith("cuda") else "cpu"
    count = int(min(inputs, ROWS, max(MIN_ROWS, inputs * WORK[device] / work)))
    some = next(iter(everything.values()))
    if some.labels is None:
        labeled = int(np.count_nonzero(some.all_labels() != IGNORE_INDEX))
        count = max(1, min(count, TOKENS * inputs // max(1, labeled)))
    return np.unique(np.linspace(0, inputs - 1, count).astype(np.int64))


def _work(context: StudyContext, label: str, features: Features) -> float:
    """Return the operations of one pass through the layers: two for each token and weight."""
    candidate = context.candidates[label]
    weights = sum(
        p.numel()
        for layer in layer_parts(candidate.model, candidate.stack)
        for part in layer
        for p in part.parameters()
    )
    return 2.0 * weights * float(features.lengths.sum())
