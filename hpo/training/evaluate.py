"""Evaluates a model on a split, in batches sorted by length whose size suits the device."""

import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hpo.tasks.base import Task
from hpo.tasks.metrics.scorer import Scorer
from hpo.training.batches.batching import evaluation_batches
from hpo.training.batches.features import Features, Indices, pop_labels
from hpo.training.execution import Execution
from hpo.training.memory.out_of_memory import with_fewer_tokens

# A step of generation computes one token of each text, so that more texts fit in memory than in a forward pass over all
# tokens; a small batch keeps neither a CPU nor a GPU busy.
GENERATION_FACTOR = 8


@dataclass(frozen=True)
class Evaluation:
    """A model's metrics on one split, with predictions and references: one entry an example, in the rows' order."""

    metrics: dict[str, float]  # the scorer's, and `loss`
    predictions: NDArray[Any]
    references: NDArray[Any]


def evaluate(
    model: nn.Module,
    features: Features,
    task: Task,
    scorer: Scorer,
    execution: Execution,
    quick: bool = False,
    stop: threading.Event | None = None,
) -> Evaluation:
    """Predict `features` with `model` and score the predictions. Leaves the model in eval mode.

    Generating texts takes far longer than computing the loss of given ones. A `quick` evaluation generates greedily
    and for `task.generation.rows` of the rows only, the same at each call; where the metric is the loss, for none.
    Raises `OutOfMemory`, and `InterruptedError` before the next batch once `stop` is set.
    """
    model.eval()
    loss, found = with_fewer_tokens(
        lambda tokens: _predict(model, features, task, execution, tokens, stop),
        execution.evaluation_tokens,
        features.longest,
        execution.device,
    )
    scored = features
    if task.generation is not None:
        if quick and scorer.name == "loss":
            return Evaluation({"loss": loss}, np.array([]), np.array([]))
        rows = np.arange(len(features))
        if quick and len(rows) > task.generation.rows:
            rows = np.linspace(0, len(rows) - 1, task.generation.rows).astype(np.int64)
            scored = replace(features, inputs=features.inputs.select(rows), rows=features.rows.select(rows))
        found = with_fewer_tokens(
            lambda tokens: _generate(model, features, rows, task, execution, tokens, quick, stop),
            GENERATION_FACTOR * execution.evaluation_tokens,
            features.longest,
            execution.device,
        )
    predictions, references = task.align_predictions(found, scored)
    metrics = {**scorer(predictions, references), "loss": loss}
    return Evaluation(metrics, predictions, references)


def _predict(
    model: nn.Module, features: Features, task: Task, execution: Execution, tokens: int, stop: threading.Event | None
) -> tuple[float, list[Any]]:
    """Return the mean loss and the task's reduction of each input's logits, in batches of `tokens` padded tokens.

    The logits themselves would take memory: of 1,000 texts of 128 tokens and 50 tags, 26 MB.
    """
    found: list[Any] = [None] * len(features)
    loss = torch.zeros((), dtype=torch.float64)
    count = 0.0
    with torch.inference_mode():
        for rows in evaluation_batches(features.lengths, tokens):
            _raise_if_stopped(stop)
            batch = {name: tensor.to(execution.device) for name, tensor in features.collate(rows).items()}
            labels = pop_labels(model, batch)
            with execution.autocast():
                logits = task.logits(model, batch)
            loss += task.loss(logits.float(), labels, 0.0).double().cpu()
            count += task.target_count(labels)
            for row, prediction in zip(rows, task.reduce_logits(logits.float(), labels), strict=True):
                found[row] = prediction
    return float(loss) / max(count, 1), found


def _raise_if_stopped(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise InterruptedError("stop requested during an evaluation")


def _generate(
    model: nn.Module,
    features: Features,
    rows: Indices,
    task: Task,
    execution: Execution,
    tokens: int,
    greedy: bool,
    stop: threading.Event | None,
) -> list[Any]:
    """Return the text generated for each of `rows`, in batches of `tokens` padded input tokens."""
    generated: list[Any] = [None] * len(rows)
    with torch.inference_mode():
        for indices in evaluation_batches(features.lengths[rows], tokens):
            _raise_if_stopped(stop)
            batch = {name: tensor.to(execution.device) for name, tensor in features.collate(rows[indices]).items()}
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            with execution.autocast():
                texts = task.generate(model, inputs, greedy)
            for index, text in zip(indices, texts, strict=True):
                generated[index] = text
    return generated
