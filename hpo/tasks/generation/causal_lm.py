"""Causal language modeling: learned from completions of prompts, from conversations or from plain texts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig
from hpo.data.checks import read_texts
from hpo.data.columns import column_values
from hpo.data.formats.detect import read_file
from hpo.data.labels.prompts import (
    Message,
    find_prompt_columns,
    join_prompts,
    read_chat,
    read_prompts,
    recognize_prompts,
    verdict_columns,
)
from hpo.tasks.base import Task
from hpo.tasks.generation.chat import PLAIN_TEMPLATE, Part, tokenize_chat, tokenize_completion, tokenize_text
from hpo.tasks.generation.generate import end_of_text, set_generation, token_loss, write_texts
from hpo.tasks.objective import Predictions
from hpo.tasks.task_data import Encoded, Examples, SourceColumns, TaskData
from hpo.tasks.text.base import check_exists, ragged_table, read_lines

if TYPE_CHECKING:
    import evaluate
    import torch

IGNORED = -100
LONGEST = 128  # tokens that a model of plain texts generates

USAGE = """\
model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder", truncation_side="left")
room = max({max_length} // 4, {max_length} - model.generation_config.max_new_tokens)  # for the prompt
# of messages: tokenizer.apply_chat_template(messages, add_generation_prompt=True, …)
inputs = tokenizer("a prompt\\n", truncation=True, max_length=room, return_tensors="pt")
tokenizer.decode(model.generate(**inputs)[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)"""


class CausalLM(Task):
    """A prompt → its continuation.

    The label of a token is the token that follows it, where that is learned: completions and the assistant's messages,
    each with the end-of-text token; all of a plain text. A text longer than an input continues in the next one; a
    prompt that leaves no room for its completion is truncated on the left.
    """

    name = "causal-lm"
    auto_class = "AutoModelForCausalLM"
    input_types = (str, list)
    pipeline_tag = "text-generation"
    default_metric = "bits_per_byte"
    search_space = "causal-lm"
    label_noun = "completions"
    metric_directions = MappingProxyType({"bits_per_byte": "minimize", "perplexity": "minimize", "loss": "minimize"})
    metric_sample = ([1.0, 2.0], [(1, 4), (2, 5)])
    hub_models = MappingProxyType(
        {
            "small": ("distilbert/distilgpt2", "HuggingFaceTB/SmolLM2-135M"),
            "base": ("HuggingFaceTB/SmolLM2-360M", "Qwen/Qwen2.5-0.5B"),
            "large": ("HuggingFaceTB/SmolLM2-1.7B", "Qwen/Qwen2.5-1.5B"),
        }
    )
    usage = USAGE
    limitations = "It continues any text; what it writes may be wrong, also where it reads well."

    def example_inputs(self, columns: Mapping[str, str]) -> tuple[str, ...]:
        return ("a prompt",)

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        if config.text is not None or isinstance(config.label, tuple):
            return False
        return bool(recognize_prompts(rows, config.label))

    def find_columns(self, rows: Dataset, origin: str, config: DataConfig) -> SourceColumns:
        roles, notes = find_prompt_columns(rows, origin, config)
        inputs = tuple(column for role, column in roles.items() if role != "label")
        return SourceColumns(roles, inputs, roles.get("label"), tuple(notes), verdict_columns(rows, roles))

    def read_examples(
        self, splits: Mapping[str, Dataset], columns: SourceColumns, origins: Mapping[str, str], config: DataConfig
    ) -> Examples:
        rows, notes = read_prompts(splits, columns.roles, origins, config.drop_empty)
        return Examples(rows, (), tuple(notes))

    def describe(self, data: TaskData) -> str:
        rows = data.train
        if "messages" in rows.column_names:
            turns = float(np.mean([len(chat) for chat in column_values(rows, "messages")]))
            return f"Conversations of {turns:.1f} messages"
        learned = column_values(rows, "label" if "label" in rows.column_names else "text")
        words = float(np.mean([len(text.split()) for text in learned]))
        return f"{'Completions' if 'label' in rows.column_names else 'Texts'} of {words:.0f} words"

    def adapt_processor(self, processor: Any, data: TaskData) -> Any:
        processor.padding_side = "left"  # of prompts: a text is continued from its end
        if "messages" in data.train.column_names and processor.chat_template is None:
            processor.chat_template = PLAIN_TEMPLATE
        return processor

    def check_model(self, model: Any, tokenizer: Any) -> str:
        if end_of_text(tokenizer) is None:
            return "its tokenizer has no end-of-text token, so that generation would never stop"
        if getattr(model.config, "is_encoder_decoder", False) or not model.can_generate():
            return "it does not generate text from left to right"
        return ""

    def encode(self, rows: Dataset, tokenizer: Any, max_length: int) -> Dataset:
        """Encode as `Task.encode`; `_example` is the row of an input, `_bytes` the bytes that are learned of it."""
        inputs: list[list[int]] = []
        labels: list[list[int]] = []
        examples: list[int] = []
        sizes: list[float] = []
        for example, (parts, size) in enumerate(self._tokenize(rows, tokenizer)):
            tokens = [token for part in parts for token in part.tokens]
            learned = [part.learned for part in parts for _ in part.tokens]
            total = sum(learned[1:])
            pieces = (
                _split(tokens, learned, max_length) if all(learned[1:]) else [_truncate(tokens, learned, max_length)]
            )
            for piece, mask in pieces:
                targets = [token if kept else IGNORED for token, kept in zip(piece[1:], mask[1:], strict=True)]
                inputs.append(piece)
                labels.append([*targets, IGNORED])
                examples.append(example)
                sizes.append(size * sum(mask[1:]) / max(total, 1))
        table = ragged_table({"input_ids": inputs, "labels": labels})
        table = table.append_column("_example", pa.array(examples, pa.int64()))
        return Dataset(table.append_column("_bytes", pa.array(sizes, pa.float64())))

    def _tokenize(self, rows: Dataset, tokenizer: Any) -> Iterator[tuple[list[Part], int]]:
        """Yield each row's tokens, and the bytes that are learned of it."""
        if "messages" in rows.column_names:
            for chat in column_values(rows, "messages"):
                yield tokenize_chat(chat, tokenizer)
            return
        texts = column_values(rows, "text")
        if "label" not in rows.column_names:
            for text in texts:
                yield tokenize_text(text, tokenizer)
            return
        for text, completion in zip(texts, column_values(rows, "label"), strict=True):
            yield tokenize_completion(text, completion, tokenizer)

    def configure_model(self, model: Any, train: Encoded) -> None:
        values, offsets = train.columns["labels"]
        lengths = np.add.reduceat(values != IGNORED, offsets[:-1])
        plain = float(np.mean(lengths)) > 0.9 * float(np.mean(np.diff(offsets)))
        set_generation(model, train.processor, lengths, 1, LONGEST if plain else None)

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        return token_loss(logits, labels, label_smoothing)

    def target_count(self, labels: Any) -> int:
        return int((labels != IGNORED).sum())

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        """Return the summed negative log-likelihood of each input's learned tokens, and their number, [inputs, 2]."""
        import torch
        from torch.nn.functional import cross_entropy

        each = cross_entropy(logits.float().transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)
        return torch.stack([each.double().sum(1), (labels != IGNORED).sum(1).double()], dim=-1).cpu().numpy()

    def align_predictions(self, predictions: Predictions, split: Encoded) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return each text's negative log-likelihood in nats; and its learned tokens and bytes, [examples, 2]."""
        found, examples = np.asarray(predictions), np.asarray(column_values(split.inputs, "_example"))
        sums = np.zeros((len(split.rows), 3))
        np.add.at(sums[:, :2], examples, found)
        np.add.at(sums[:, 2], examples, np.asarray(column_values(split.inputs, "_bytes")))
        return sums[:, 0], sums[:, 1:]

    def build_metric(self, data: TaskData | None) -> "evaluate.Metric":
        from hpo.tasks.metrics.language_modeling import LanguageMetrics

        return LanguageMetrics()

    def finalize_model(self, model: Any, data: TaskData) -> None:
        model.config.use_cache = True  # off during training
        model.config.trained_on = _format(data.train)

    def predict(
        self, model: Any, tokenizer: Any, rows: Sequence[str | list[Message]], max_length: int, batch_size: int = 64
    ) -> list[dict[str, Any]]:
        """Predict the continuation (`label`) of prompts, or the answer to conversations."""
        most = model.generation_config.max_new_tokens
        room = max(max_length // 4, max_length - most)
        prompts, shown = [], []
        for number, row in enumerate(rows, 1):
            parts, text = _tokenize_prompt(row, tokenizer, model.config.trained_on, number)
            prompts.append([token for part in parts for token in part.tokens][-room:])
            shown.append(text)
        texts = write_texts(model, tokenizer, prompts, batch_size, "left", max_new_tokens=min(most, max_length - room))
        return [{"label": text, "text": prompt} for text, prompt in zip(texts, shown, strict=True)]

    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[Any]:
        check_exists(path)
        if path.suffix.lower() == ".txt":
            return list(read_lines(path, encoding))
        rows = read_file(path, encoding)
        if any(name not in rows.column_names for role, name in columns.items() if role != "label"):
            columns, _ = find_prompt_columns(rows, path.name, DataConfig(path=str(path)))
        if "messages" in columns:
            return [
                read_chat(value, f"{path.name}, row {row}", to_answer=True)
                for row, value in enumerate(column_values(rows, columns["messages"]), 1)
            ]
        return join_prompts(
            [read_texts(rows, columns[role], path.name) for role in ("text", "text_pair") if role in columns]
        )


def _tokenize_prompt(row: str | list[Message], tokenizer: Any, trained_on: str, number: int) -> tuple[list[Part], str]:
    """Tokenize input `number` in the format that the model was trained on, and return the text to show for it."""
    if trained_on != "messages" and isinstance(row, str):
        parts, _ = tokenize_completion(row, None, tokenizer, as_is=trained_on == "texts")
        return parts, row
    messages = [{"role": "user", "content": row}] if isinstance(row, str) else row
    chat = read_chat(messages, f"input {number}", to_answer=True)
    parts, _ = tokenize_chat(chat, tokenizer, to_answer=True)
    return parts, chat[-1]["content"] if chat else ""


def _format(rows: Dataset) -> str:
    """Return what a model is trained on, and so how it is prompted: messages, prompts or texts."""
    return "messages" if "messages" in rows.column_names else "prompts" if "label" in rows.column_names else "texts"


def _truncate(tokens: list[int], learned: list[bool], most: int) -> tuple[list[int], list[bool]]:
    """Truncate to `most` tokens: the prompt at its start, down to a quarter of them, then the completion at its end."""
    first = learned.index(True)
    start = max(0, first - max(most // 4, most - (len(tokens) - first)))
    return tokens[start : start + most], learned[start : start + most]


def _split(tokens: list[int], learned: list[bool], most: int) -> list[tuple[list[int], list[bool]]]:
    """Return pieces of `most` tokens, which overlap by one token: so every token is predicted once."""
    starts = range(0, max(1, len(tokens) - 1), most - 1)
    return [(tokens[start : start + most], learned[start : start + most]) for start in starts]
