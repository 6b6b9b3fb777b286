"""Evaluation: all rows once, sorted by length, in batches of the size that suits the device, without gradient."""

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from hpo.tasks.metrics import Scorer
from hpo.tasks.task import Task, logits_of
from hpo.training.batching import Features, evaluation_batches
from hpo.training.out_of_memory import with_fewer_tokens
from hpo.training.precision import Execution


@dataclass(frozen=True)
class Evaluation:
    """What a model did on one split: predictions and what they should be, one entry an example, in the rows' order."""

    metrics: dict[str, float]  # the scorer's, and `loss`
    predictions: NDArray[Any]
    references: NDArray[Any]


def evaluate(model: nn.Module, features: Features, task: Task, scorer: Scorer, execution: Execution) -> Evaluation:
    """Run `model` over `features` and score it. Leaves the model in eval mode. Raises `OutOfMemory`."""
    model.eval()
    longest = int(features.lengths.max())
    loss, found = with_fewer_tokens(
        lambda tokens: _run(model, features, task, execution, tokens),
        execution.evaluation_tokens,
        longest,
        execution.device,
    )
    predictions, references = task.compare(found, features)
    metrics = {**scorer(predictions, references), "loss": loss}
    return Evaluation(metrics, predictions, references)


def _run(
    model: nn.Module, features: Features, task: Task, execution: Execution, tokens: int
) -> tuple[float, list[Any]]:
    """The mean loss, and what the task keeps of each input's logits, in batches of `tokens` padded tokens.

    All logits of a split may be many: 1,000 texts of 128 tokens and 50 tags are 26 MB.
    """
    found: list[Any] = [None] * len(features)
    loss = torch.zeros((), dtype=torch.float64)
    count = 0
    with torch.inference_mode():
        for rows in evaluation_batches(features.lengths, tokens):
            batch = {name: tensor.to(execution.device) for name, tensor in features.collate(rows).items()}
            labels = batch.pop("labels")
            with execution.autocast():
                logits = logits_of(model(**batch))
            loss += task.loss(logits.float(), labels, 0.0).double().cpu()
            count += task.count(labels)
            for row, prediction in zip(rows, task.predictions(logits.float(), labels), strict=True):
                found[row] = prediction
    return float(loss) / max(count, 1), found
