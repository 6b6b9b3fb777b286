"""Evaluation: all rows once, sorted by length, in batches of the size that suits the device, without gradient."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from hpo.tasks.metrics import Scorer
from hpo.tasks.task import Task
from hpo.training.batching import Features, evaluation_batches, example_order
from hpo.training.out_of_memory import with_fewer_tokens
from hpo.training.precision import Execution


@dataclass(frozen=True)
class Evaluation:
    """What a model did on one split: `logits` has one entry per row, in the rows' order."""

    metrics: dict[str, float]  # the scorer's, and `loss`
    logits: np.ndarray[Any, np.dtype[np.float32]]
    predictions: np.ndarray[Any, Any]


def evaluate(model: nn.Module, features: Features, task: Task, scorer: Scorer, execution: Execution) -> Evaluation:
    """Run `model` over `features` and score it. Leaves the model in eval mode. Raises `OutOfMemory`."""
    model.eval()
    longest = int(features.lengths.max())
    loss, logits = with_fewer_tokens(
        lambda tokens: _run(model, features, task, execution, tokens),
        execution.evaluation_tokens,
        longest,
        execution.device,
    )
    predictions = task.predictions(logits)
    metrics = {**scorer(predictions, features.labels), "loss": loss}
    return Evaluation(metrics, logits, predictions)


def _run(
    model: nn.Module, features: Features, task: Task, execution: Execution, tokens: int
) -> tuple[float, np.ndarray[Any, np.dtype[np.float32]]]:
    """The mean loss and the logits, in batches of `tokens` padded tokens."""
    parts, outputs = [], []
    loss = torch.zeros((), dtype=torch.float64)
    count = 0
    with torch.inference_mode():
        for rows in evaluation_batches(features.lengths, tokens):
            batch = {name: tensor.to(execution.device) for name, tensor in features.collate(rows).items()}
            labels = batch.pop("labels")
            with execution.autocast():
                logits = model(**batch).logits
            loss += task.loss(logits.float(), labels, 0.0).double().cpu()
            count += task.count(labels)
            parts.append(rows)
            outputs.append(logits.float().cpu().numpy())
    return float(loss) / max(count, 1), np.concatenate(outputs)[example_order(parts)]
