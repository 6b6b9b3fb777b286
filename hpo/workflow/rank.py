"""Ranking the candidate models on the person's own data before anything is trained: `hpo rank`, and in `hpo run`."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hpo.config.study import load_config
from hpo.core.format import score
from hpo.data.splits.subsample import sample_rows
from hpo.errors import ConfigError, OutOfMemory
from hpo.reporting.console import console
from hpo.search.ranking import RankedModel, Ranking, best_first
from hpo.training.batches.batching import IGNORED, Features, Indices
from hpo.training.execution import all_cores
from hpo.training.models.layers import stack_items
from hpo.training.ranking.layer_features import frozen_states
from hpo.training.ranking.transferability import transferability
from hpo.workflow.checks.constraints import keep_to_constraints
from hpo.workflow.checks.study import inspect_models
from hpo.workflow.context import Workbench
from hpo.workflow.launch.placement import place_study

ROWS = 2000
TOKENS = 5000  # with a label each, where each token has one
# Operations of the largest model's pass, so that long texts do not make it long: 20 s at the 460 GFLOP/s that two cores
# with AMX reached, where 2,000 texts of 30 tokens take a model of BERT-base's size 1e13.
WORK = {"cpu": 1e13, "cuda": 1e15}
FEWEST = 200


def rank_study(source: str | os.PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()) -> Ranking:
    """Rank the models of a study that need not have been run. Raises `HpoError`."""
    config = load_config(source, overrides)
    placement = place_study(config)
    placement.backend.kill()  # nothing runs elsewhere
    with console.progress("reading the data"):
        bench = Workbench(config, placement.execution_here())
    with console.progress("checking the models"):
        for line in keep_to_constraints(bench):
            console.note(line)
        inspect_models(bench)
    reason = bench.why_no_ranking()
    if reason:
        raise ConfigError(f"There is nothing to rank: {reason}.")
    return rank_models(bench)


def rank_if_wanted(bench: Workbench) -> Ranking | None:
    """The ranking with which a search begins, told in a line; None where there is none, or the study wants none."""
    if not bench.ranked:
        return None
    ranking = rank_models(bench)
    shown = ", ".join(f"{m.model} {score(m.score)}" for m in ranking.models)
    console.note(f"  models by what their frozen features tell of the labels, the best is tried first: {shown}")
    queue = bench.first_trials(ranking.order)
    if queue.note:
        console.note(f"  {queue.note}")
    return ranking


def rank_models(bench: Workbench) -> Ranking:
    """Score each candidate by its frozen features of the same training rows; shows how far it is.

    A model that does not fit in memory gets no score. Validation is not looked at.
    """
    labels = bench.config.labels
    with console.progress(f"ranking {len(labels)} models on the data", total=len(labels)) as advance:
        places = _rows(bench)
        with all_cores(bench.execution):  # the study's workers have nothing to do yet
            return Ranking(len(places), best_first([_scored(bench, label, places, advance) for label in labels]))


def _scored(bench: Workbench, label: str, places: Indices, advance: Callable[..., None]) -> RankedModel:
    candidate, started = bench.candidates[label], time.perf_counter()
    found, why = None, ""
    try:
        states = frozen_states(candidate, _features(bench, label), places, bench.execution)
        found = transferability(states.layers, states.labels, states.examples)
    except OutOfMemory as error:
        why = str(error)
    advance()
    seconds = round(time.perf_counter() - started, 2)
    return RankedModel(label, candidate.parameters, candidate.stack.count, found, seconds, why)


def _features(bench: Workbench, label: str) -> Features:
    """At most `ROWS` training rows, of each class its share; encoded apart where there are more."""
    rows = len(bench.data.train)
    if rows <= ROWS:
        return bench.features("train", label)
    drawn = sample_rows(bench.task.strata(bench.data.train), bench.config.seed, ROWS / rows)
    return bench.features("train", label, drawn)


def _rows(bench: Workbench) -> Indices:
    """Which inputs all models are scored on: as many as the work of the largest allows, evenly over all of them."""
    everything = {label: _features(bench, label) for label in bench.config.labels}
    inputs = min(len(features) for features in everything.values())
    work = max(_work(bench, label, features) for label, features in everything.items())
    device = "cuda" if bench.execution.device.startswith("cuda") else "cpu"
    count = int(min(inputs, ROWS, max(FEWEST, inputs * WORK[device] / work)))
    some = next(iter(everything.values()))
    if some.labels is None:
        labelled = int(np.count_nonzero(some.all_labels() != IGNORED))
        count = max(1, min(count, TOKENS * inputs // max(1, labelled)))
    return np.unique(np.linspace(0, inputs - 1, count).astype(np.int64))


def _work(bench: Workbench, label: str, features: Features) -> float:
    """Operations of one pass through the layers: two a token and weight."""
    candidate = bench.candidates[label]
    weights = sum(p.numel() for p in stack_items(candidate.model, candidate.stack).parameters())
    return 2.0 * weights * float(features.lengths.sum())
