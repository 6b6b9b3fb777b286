"""One forward and backward pass of real rows per candidate: drops the models that cannot be trained on the data."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hpo.data.columns import column_values
from hpo.errors import HpoError, ModelError
from hpo.training.batches.features import Features, pop_labels
from hpo.training.memory.accumulation import running_statistics
from hpo.training.models.candidate import Candidate
from hpo.training.models.compatibility import check_finite
from hpo.training.models.layers import token_embedding
from hpo.workflow.checks.truncation import count_truncated
from hpo.workflow.context import StudyContext

SAMPLE = 64  # training rows of texts to look for unknown tokens in
MANY_PARAMETERS = 1_000_000_000  # from here on the gradients are not computed: they take 4 bytes each
UNKNOWN_SHARE = 0.1  # of a sample's tokens, above which users are warned


def apply_passes(context: StudyContext) -> tuple[StudyContext, list[str]]:
    """Drop the candidates that cannot be trained on the data; return the rest, and a note on each dropped or doubtful.

    Raises `ModelError` when no candidate is left.
    """
    failed: dict[str, ModelError] = {}
    notes: list[str] = []
    for label in context.config.labels:
        try:
            notes += _try(context, label)
        except ModelError as error:
            failed[label] = error
    if len(failed) == len(context.config.labels):
        raise ModelError("\n".join(str(error) for error in failed.values())) from next(iter(failed.values()))
    config = context.config.drop_models({label: str(error) for label, error in failed.items()})
    dropped = [f"{label} is dropped: {str(error).removeprefix(f'{label}: ')}" for label, error in failed.items()]
    truncated = [note for label in config.labels for note in count_truncated(context, label)]
    data = replace(context.data, notes=(*context.data.notes, *truncated))
    return replace(context, config=config, data=data), [*dropped, *notes]


def _try(context: StudyContext, label: str) -> list[str]:
    """Pass the longest and the shortest of a sample of training rows; return notes. Raises `ModelError`."""
    candidate = context.candidates[label]
    check_finite(candidate.ref, candidate.model)
    with _named(label, context.task.name):
        features = context.encodings.get("train", candidate.processor, context.max_length(label), _sample(context))
        notes = _check_tokens(candidate, features)
        order = np.argsort(features.lengths, kind="stable")
        rows = np.unique(order[[0, -1]])
        if candidate.parameters < MANY_PARAMETERS:
            _pass(context, candidate.model, features, rows, train=True)
        _pass(context, candidate.model, features, rows[:1], train=False)
    return notes


@contextmanager
def _named(label: str, task: str) -> Iterator[None]:
    """Raise any exception as a `ModelError` that names the model and the task."""
    try:
        yield
    except ModelError as error:
        raise error if str(error).startswith(f"{label}:") else ModelError(f"{label}: {task}: {error}") from error
    except HpoError:
        raise  # of the data, for example
    except Exception as error:
        cause = " ".join(str(error).split())[:400]
        raise ModelError(
            f"{label}: {task}: a forward and backward pass of training rows failed: {type(error).__name__}: {cause}"
        ) from error


def _sample(context: StudyContext) -> list[int]:
    """Return indices of training rows: the longest and the shortest, and of texts some between them."""
    rows = context.data.train
    names = [name for name in rows.column_names if name not in ("image", "audio")]
    columns = [column_values(rows, name) for name in names]
    sizes = np.zeros(len(rows), np.int64)
    for column in columns:
        if column and isinstance(column[0], str | list | tuple):
            sizes += np.fromiter((len(value) if value is not None else 0 for value in column), np.int64, len(column))
    ends = [int(sizes.argmax()), int(sizes.argmin())]
    between = 2 if context.task.encode_batch_size else SAMPLE
    return sorted({*ends, *np.linspace(0, len(rows) - 1, between).astype(int).tolist()})


def _check_tokens(candidate: Candidate, features: Features) -> list[str]:
    """Return a warning where much of the texts is unknown to the tokenizer; raise `ModelError` where all of it is."""
    tokenizer, label = candidate.processor, candidate.ref.label
    if "input_ids" not in features.columns or not hasattr(tokenizer, "get_vocab"):
        return []
    tokens = np.asarray(features.columns["input_ids"][0]).reshape(-1)
    table = token_embedding(candidate.model)
    rows = int(tokens.max(initial=0)) + 1 if table is None else table.num_embeddings
    if int(tokens.max(initial=0)) >= rows:
        token = tokenizer.convert_ids_to_tokens(int(tokens.max()))
        raise ModelError(
            f"{label}: the token {token!r} of the data is beyond the {rows} rows of the model's embedding."
        )
    if tokenizer.unk_token_id is None or tokenizer.unk_token_id == tokenizer.eos_token_id:
        return []
    special = [i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id]
    words = tokens[~np.isin(tokens, special)]
    share = float((words == tokenizer.unk_token_id).mean()) if len(words) else 0.0
    if share == 1.0:
        raise ModelError(
            f"{label}: its tokenizer maps every text of the data to {tokenizer.unk_token}: they cannot be "
            "distinguished. The tokenizer is wrong (`processor:` names another), or for another language or case."
        )
    if share > UNKNOWN_SHARE:
        return [f"{label}: its tokenizer does not know {share:.0%} of the tokens of the texts ({tokenizer.unk_token})"]
    return []


def _pass(context: StudyContext, model: Any, features: Features, rows: Any, train: bool) -> None:
    """Compute the loss of a batch, with gradients in train mode. Leaves the model and all random states unchanged."""
    task, execution = context.task, replace(context.execution, device="cpu")
    batch = features.collate(rows)
    labels = pop_labels(model, batch)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(train):
        torch.manual_seed(context.config.seed)
        model.train(train)
        try:
            with running_statistics(model, len(rows)), execution.autocast():
                logits = task.logits(model, batch)
            loss = task.loss(logits.float(), labels, 0.0)
            if torch.isnan(loss):
                raise ModelError("the loss of training rows is nan before any training")
            if train:
                loss.backward()
            else:
                task.reduce_logits(logits.float(), labels)
        finally:
            model.eval()
            model.zero_grad(set_to_none=True)
            with torch.no_grad():
                for name, buffer in model.named_buffers():
                    if name in buffers:
                        buffer.copy_(buffers[name])
