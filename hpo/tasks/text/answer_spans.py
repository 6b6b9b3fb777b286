"""Answer spans: contexts encoded as overlapping windows, and the best span of a context over its windows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.data.columns import column_values
from hpo.tasks.text.base import ragged_table

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

LONGEST_ANSWER = 64  # tokens


def encode_windows(
    questions: list[str],
    contexts: list[str],
    labels: list[dict[str, list[Any]]] | None,
    first_row: int,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
) -> pa.Table:
    """Encode each context as windows that overlap by a quarter of `max_length`, at most 128 tokens.

    A question takes at most a third of a window. `_example` is the row of a window, counted from `first_row`; `_begin`
    and `_end` are the characters of its tokens in the context, -1 for tokens outside it. `labels` are four token
    indices (`_label_window`).
    """
    encoded = tokenizer(
        _shorten(questions, tokenizer, max_length // 3),
        contexts,
        truncation="only_second",
        max_length=max_length,
        stride=min(128, max_length // 4),
        return_attention_mask=False,
        return_offsets_mapping=True,
        return_overflowing_tokens=True,
    )
    examples = encoded["overflow_to_sample_mapping"]
    begins, ends, window_labels, kept = [], [], [], []
    for index, example in enumerate(examples):
        in_context = [part == 1 for part in encoded.sequence_ids(index)]
        if not any(in_context):
            continue  # an empty context
        offsets = encoded["offset_mapping"][index]
        begins.append([begin if inside else -1 for inside, (begin, _) in zip(in_context, offsets, strict=True)])
        ends.append([end if inside else -1 for inside, (_, end) in zip(in_context, offsets, strict=True)])
        kept.append(index)
        if labels is not None:
            window_labels.append(_label_window(begins[-1], ends[-1], labels[example]))
    columns = {n: [encoded[n][index] for index in kept] for n in ("input_ids", "token_type_ids") if n in encoded}
    table = ragged_table({**columns, "_begin": begins, "_end": ends})
    if labels is not None:
        flat = pa.array(np.array(window_labels, dtype=np.int64).ravel())
        table = table.append_column("labels", pa.FixedSizeListArray.from_arrays(flat, 4))
    return table.append_column("_example", pa.array([first_row + examples[index] for index in kept], pa.int64()))


def _label_window(begins: list[int], ends: list[int], answers: dict[str, list[Any]]) -> tuple[int, int, int, int]:
    """Return first and last token of the first answer inside the window, 0 and 0 without one, and of the context."""
    inside = [index for index, begin in enumerate(begins) if begin >= 0]
    first, last = inside[0], inside[-1]
    for text, start in zip(answers["text"], answers["answer_start"], strict=True):
        stop = start + len(text)
        if begins[first] <= start and stop <= ends[last]:
            answer = [index for index in inside if ends[index] > start and begins[index] < stop]
            if answer:
                return answer[0], answer[-1], first, last
    return 0, 0, first, last


def _shorten(questions: list[str], tokenizer: "PreTrainedTokenizerBase", most: int) -> list[str]:
    """Truncate questions to `most` tokens: one that fills the input would leave no room for the context."""
    encoded = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True)
    return [
        question if len(offsets) <= most else question[: offsets[most - 1][1]]
        for question, offsets in zip(questions, encoded["offset_mapping"], strict=True)
    ]


def context_mask(logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    """Return which tokens are in the context, [inputs, tokens], by the last two columns of `labels`."""
    import torch

    tokens = torch.arange(logits.shape[1], device=logits.device)[None]
    return (tokens >= labels[:, 2:3]) & (tokens <= labels[:, 3:4])


def best_spans(logits: "torch.Tensor", in_context: "torch.Tensor") -> NDArray[Any]:
    """Return score, first and last token of each window's best span of up to 64 tokens, [inputs, 3]; -inf: no span.

    `logits` are [inputs, tokens, 2] (start, end), `in_context` [inputs, tokens].
    """
    import torch

    scores = logits.float().masked_fill(~in_context[..., None], float("-inf"))
    start, end = scores[..., 0], scores[..., 1]
    most = min(LONGEST_ANSWER, end.shape[1])
    padded = torch.nn.functional.pad(end, (0, most - 1), value=float("-inf"))
    # [inputs, first token, length]: the best end for each start, without a matrix of all pairs
    best_end, length = padded.unfold(1, most, 1).max(-1)
    best, first = (start + best_end).max(-1)
    last = first + length.gather(1, first[:, None]).squeeze(1)
    return torch.stack([best.double(), first.double(), last.double()], dim=-1).cpu().numpy()


def best_answers(
    spans: Sequence[Any] | NDArray[Any], windows: Dataset, contexts: Sequence[str]
) -> list[tuple[str, float]]:
    """Return the text of the best span over all windows of each context, and its score."""
    found: list[tuple[str, float]] = [("", float("-inf"))] * len(contexts)
    columns = (column_values(windows, name) for name in ("_example", "_begin", "_end"))
    for (score, first, last), example, begins, ends in zip(spans, *columns, strict=True):
        if score > found[example][1]:
            text = contexts[example][begins[int(first)] : ends[int(last)]]
            found[example] = (text.strip(), float(score))
    return found
