"""How many texts, targets and conversations of the training data are longer than what a model reads."""

import copy
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from hpo.core.format import count
from hpo.workflow.context import StudyContext

SAMPLE = 300  # training rows, evenly spaced: they are encoded twice
UNLIMITED = 1_000_000  # tokens


def count_truncated(context: StudyContext, label: str) -> list[str]:
    """Return a note for the texts, and one for the targets, of a sample of training rows that a model truncates.

    Where long texts become several inputs, nothing is truncated. Notes on audio clips are the task's own.
    """
    task, limit, processor = context.task, context.max_length(label), context.candidates[label].processor
    if task.encode_batch_size or not limit:
        return []
    train = context.data.train
    rows = train.select(np.unique(np.linspace(0, len(train) - 1, min(SAMPLE, len(train))).astype(int)))
    generous: Any = copy.copy(task)
    if task.generation is not None:
        generous.generation = task.generation.model_copy(update={"max_target_length": None})
    read, full = task.encode(rows, processor, limit), generous.encode(rows, processor, UNLIMITED)
    if {len(read), len(full)} != {len(rows)} or "input_ids" not in read.column_names:  # windows of long texts
        return []
    noun = "conversation" if "messages" in rows.column_names else "text"
    found = {noun: (_lengths(read, "input_ids"), _lengths(full, "input_ids"))}
    if task.generation is not None:
        found["target"] = (_lengths(read, "labels"), _lengths(full, "labels"))
    notes = []
    for name, (kept, given) in found.items():
        longer = int((given > kept).sum())
        if longer:
            lost = 1 - kept.sum() / given.sum()
            key = "generation.max_target_length" if name == "target" else "max_length"
            sampled = " sampled" if len(rows) < len(train) else ""
            notes.append(
                f"{label}: {longer} of {count(len(rows), name)}{sampled} truncated to "
                f"{int(kept.max())} tokens, {lost:.0%} of all tokens (`{key}` sets the limit)"
            )
    return notes


def _lengths(rows: Dataset, column: str) -> Any:
    return pc.list_value_length(rows.data.table.column(column)).to_numpy().astype(np.int64)
