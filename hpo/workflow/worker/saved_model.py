"""Checks a saved model before it becomes the final one: it predicts real rows as they were evaluated."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from hpo.data.columns import column_values
from hpo.data.labels.prompts import read_chat
from hpo.errors import ModelError
from hpo.tasks.base import Task
from hpo.tasks.objective import Objective
from hpo.training.batches.features import Features, Indices
from hpo.training.parity import alone, difference, inputs_of, logits_of, repadded
from hpo.training.plan import TrainingPlan
from hpo.workflow.context import StudyContext
from hpo.workflow.predict import Predictor

ROWS = 12
PRODUCTS = 3e10  # of weights and tokens in a pass over the sample on a CPU: half a second on two cores
NEW_TOKENS = 8  # generated per row
DIFFERING = 0.25  # fraction of the rows above which answers differ by more than ties


@dataclass(frozen=True)
class Sample:
    """A few rows, and their logits as the trained model returns them in evaluation."""

    task: Task
    label: str  # of the candidate model
    split: str
    features: Features
    max_length: int
    device: str
    evaluated: list[torch.Tensor]

    @classmethod
    def evaluate(cls, model: nn.Module, plan: TrainingPlan, context: StudyContext) -> Self:
        """Evaluate rows of test, else of validation, with a trained model."""
        split = "test" if context.data.test is not None else "validation"
        label, device = plan.params.model, plan.execution.device
        rows = len(getattr(context.data, split))
        indices = np.unique(np.linspace(0, rows - 1, min(rows, ROWS)).astype(int)).tolist()
        costs = row_costs(context.features(split, label, indices), len(indices))
        most = plan.execution.evaluation_tokens
        if device == "cpu":
            most = min(most, int(PRODUCTS / plan.candidate.parameters))
        order = np.argsort(costs, kind="stable")
        kept = max(2, int((np.cumsum(costs[order]) <= most).sum()))
        features = context.features(split, label, sorted(indices[number] for number in order[:kept]))
        batch = inputs_of(model.to(device), features, np.arange(len(features)), device)
        evaluated = logits_of(context.task, model, batch)
        return cls(context.task, label, split, features, context.max_length(label), device, evaluated)

    def check(self, folder: Path) -> None:
        """Predict the rows with the model saved in `folder`, in a batch, alone and as transformers alone does.

        Raises `ModelError` where a prediction differs from the evaluation by more than rounding.
        """
        saved = Predictor(folder, self.device)
        found = self._logits_differ(saved) or self._answers_differ(saved)
        if found:
            raise ModelError(
                f"{self.label}: the model saved in {folder} does not predict rows of {self.split} as they were "
                f"evaluated: {found}. It is not kept as the final model: its scores would not hold for its "
                "predictions. Leave this model out of `models`, or report this with the names of model and task."
            )

    @property
    def _inputs(self) -> Indices:
        return np.arange(len(self.features))

    def _logits_differ(self, saved: Predictor) -> str:
        model, features = saved.model, self.features
        batch = inputs_of(model, features, self._inputs, self.device)
        found = difference(self.evaluated, logits_of(self.task, model, batch))
        if found:
            return f"loaded from the folder, its {found}"
        if features.ragged and "attention_mask" not in batch:
            return ""  # as wav2vec2-base: its padding is read by design
        found = difference(self.evaluated, alone(self.task, model, features, self._inputs, self.device))
        if found:
            return f"alone, not in a batch, its {found}"
        # Decoders that continue texts are padded on the left, by `generate`, which numbers positions itself.
        is_plain = type(self.task).build_model is Objective.build_model and self.task.pipeline_tag != "text-generation"
        if "input_ids" in batch and is_plain and self.task.final_processor_class == "AutoTokenizer":
            from transformers import AutoTokenizer

            trusted = saved.record.trust_remote_code
            plain = AutoTokenizer.from_pretrained(saved.folder, local_files_only=True, trust_remote_code=trusted)
            padded = repadded(batch, plain)
            found = difference(self.evaluated, logits_of(self.task, model, padded))
        return f"in a batch padded by its tokenizer, as by a pipeline of transformers, its {found}" if found else ""

    def _answers_differ(self, saved: Predictor) -> str:
        rows = prediction_inputs(self.features)
        if rows is None or (self.features.ragged and not self._is_masked):
            return ""
        model = saved.model
        settings = getattr(model, "generation_config", None)
        if settings is not None and settings.max_new_tokens:
            settings.max_new_tokens = min(settings.max_new_tokens, NEW_TOKENS)
        batched, single = (
            self.task.predict(model, saved.processor, rows, self.max_length, size) for size in (len(rows), 1)
        )
        differing = [row for row, pair in enumerate(zip(batched, single, strict=True), 1) if not same_answer(*pair)]
        if len(differing) <= max(1, DIFFERING * len(rows)):
            return ""
        return f"`predict` answers {len(differing)} of {len(rows)} rows otherwise in a batch than alone"

    @property
    def _is_masked(self) -> bool:
        return "attention_mask" in self.features.collate(np.arange(1))


def row_costs(features: Features, rows: int) -> Indices:
    """Return the tokens of each row, in all of its inputs."""
    examples: Any = np.arange(rows)
    if "_example" in features.inputs.column_names:
        examples = np.asarray(column_values(features.inputs, "_example"))
    costs = np.zeros(rows, dtype=np.int64)
    np.add.at(costs, examples, features.lengths)
    return costs


def prediction_inputs(features: Features) -> Sequence[Any] | None:
    """Return the rows as inputs of `Task.predict`; None for columns of a user's own task."""
    rows = features.rows.with_format(None)
    names = [name for name in rows.column_names if name in ("image", "audio", "messages", "text", "text_pair")]
    columns = [rows[name][:] for name in names]
    if names == ["messages"]:
        return [read_chat(chat, "a conversation", to_answer=True) for chat in columns[0]]
    if names == ["text", "text_pair"] and columns[1] and isinstance(columns[1][0], list):  # choices, padded
        return [(text, [choice for choice in choices if choice]) for text, choices in zip(*columns, strict=True)]
    if names == ["text", "text_pair"]:
        return list(zip(*columns, strict=True))
    return columns[0] if len(names) == 1 else None


def same_answer(one: Any, other: Any) -> bool:
    """Return whether two predictions are the same but for rounding; two labels with the same score are tied."""
    if isinstance(one, dict) and isinstance(other, dict):
        scores = one.get("score"), other.get("score")
        if all(isinstance(score, float) for score in scores):
            return same_answer(*scores)
        return one.keys() == other.keys() and all(same_answer(value, other[name]) for name, value in one.items())
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-3 * (1 + abs(one))
    return bool(one == other)
