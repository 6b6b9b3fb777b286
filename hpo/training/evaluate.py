"""Evaluation: all rows once, sorted by length, in batches of the size that suits the device, without gradient."""

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

# A step of writing computes one token of each text, so that more texts fit at once than where all tokens are computed;
# a batch of few keeps neither a CPU nor a GPU busy.
WRITING = 8


@dataclass(frozen=True)
class Evaluation:
    """What a model did on one split: predictions and what they should be, one entry an example, in the rows' order."""

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
    """Run `model` over `features` and score it. Leaves the model in eval mode.

    Raises `OutOfMemory`, and `InterruptedError` before the next batch once `stop` is set.

    Writing texts takes far longer than judging given ones. A `quick` evaluation has them written greedily, for a part
    of the rows, the same at each call; and for none of them where the loss is what counts.
    """
    model.eval()
    loss, found = with_fewer_tokens(
        lambda tokens: _run(model, features, task, execution, tokens, stop),
        execution.evaluation_tokens,
        features.longest,
        execution.device,
    )
    judged = features
    if task.generation is not None:
        if quick and scorer.name == "loss":
            return Evaluation({"loss": loss}, np.array([]), np.array([]))
        rows = np.arange(len(features))
        if quick and len(rows) > task.generation.rows:
            rows = np.linspace(0, len(rows) - 1, task.generation.rows).astype(np.int64)
            judged = replace(features, inputs=features.inputs.select(rows), rows=features.rows.select(rows))
        found = with_fewer_tokens(
            lambda tokens: _write(model, features, rows, task, execution, tokens, quick, stop),
            WRITING * execution.evaluation_tokens,
            features.longest,
            execution.device,
        )
    predictions, references = task.align_predictions(found, judged)
    metrics = {**scorer(predictions, references), "loss": loss}
    return Evaluation(metrics, predictions, references)


def _run(
    model: nn.Module, features: Features, task: Task, execution: Execution, tokens: int, stop: threading.Event | None
) -> tuple[float, list[Any]]:
    """The mean loss, and what the task keeps of each input's logits, in batches of `tokens` padded tokens.

    All logits of a split may be many: 1,000 texts of 128 tokens and 50 tags are 26 MB.
    """
    found: list[Any] = [None] * len(features)
    loss = torch.zeros((), dtype=torch.float64)
    count = 0.0
    with torch.inference_mode():
        for rows in evaluation_batches(features.lengths, tokens):
            _check(stop)
            batch = {name: tensor.to(execution.device) for name, tensor in features.collate(rows).items()}
            labels = pop_labels(model, batch)
            with execution.autocast():
                logits = task.logits(model, batch)
            loss += task.loss(logits.float(), labels, 0.0).double().cpu()
            count += task.target_count(labels)
            for row, prediction in zip(rows, task.reduce_logits(logits.float(), labels), strict=True):
                found[row] = prediction
    return float(loss) / max(count, 1), found


def _check(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise InterruptedError("told to stop in the middle of an evaluation")


def _write(
    model: nn.Module,
    features: Features,
    rows: Indices,
    task: Task,
    execution: Execution,
    tokens: int,
    greedy: bool,
    stop: threading.Event | None,
) -> list[Any]:
    """What the model writes for each of `rows`, in batches of `tokens` padded tokens that are read."""
    written: list[Any] = [None] * len(rows)
    with torch.inference_mode():
        for places in evaluation_batches(features.lengths[rows], tokens):
            _check(stop)
            batch = {name: tensor.to(execution.device) for name, tensor in features.collate(rows[places]).items()}
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            with execution.autocast():
                texts = task.generate(model, inputs, greedy)
            for place, text in zip(places, texts, strict=True):
                written[place] = text
    return written
