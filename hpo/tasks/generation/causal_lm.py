"""Causal language models: what is said next, learnt of completions of prompts, of conversations or of plain texts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig
from hpo.core.direction import Direction
from hpo.data.checks import read_texts
from hpo.data.columns import column_values
from hpo.data.labels.prompts import (
    Message,
    find_prompt_columns,
    join_prompts,
    read_chat,
    read_prompts,
    recognize_prompts,
)
from hpo.data.readers import decode, read_file
from hpo.data.sources import load_splits
from hpo.data.splits.create import create_splits
from hpo.data.splits.labeled import labeled_splits
from hpo.tasks.base import Predictions, Task
from hpo.tasks.generation.chat import PLAIN_TEMPLATE, Part, parts_of_chat, parts_of_completion, parts_of_text
from hpo.tasks.generation.generate import end_of_text, set_generation, token_loss, write_texts
from hpo.tasks.metrics.scorer import Scorer, load_metric
from hpo.tasks.task_data import Encoded, TaskData, fingerprint
from hpo.tasks.text.base import check_exists, ragged_table

if TYPE_CHECKING:
    import evaluate
    import torch

DIRECTIONS: dict[str, Direction] = {"bits_per_byte": "minimize", "perplexity": "minimize", "loss": "minimize"}
SAMPLE = ([1.0, 2.0], [(1, 4), (2, 5)])
IGNORED = -100
LONGEST = 128  # tokens that a model of plain texts goes on for

USAGE = """\
model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
inputs = tokenizer("a prompt\\n", return_tensors="pt")  # or tokenizer.apply_chat_template(messages, …)
tokenizer.decode(model.generate(**inputs)[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)"""


class CausalLM(Task):
    """A prompt → what follows it. See `Task` for what each method promises.

    Labels of an input are, for each of its tokens, the token that follows, where it is to be learnt: completions and
    the assistant's messages are, with the token that ends them; of plain texts all. A text that is longer than an
    input goes on in the next one; of a prompt that leaves no room for its completion the beginning is cut off.
    """

    name = "causal-lm"
    auto_class = "AutoModelForCausalLM"
    pipeline_tag = "text-generation"
    default_metric = "bits_per_byte"
    search_space = "causal-lm"
    hub_models = MappingProxyType(
        {
            "small": ("distilbert/distilgpt2", "HuggingFaceTB/SmolLM2-135M"),
            "base": ("HuggingFaceTB/SmolLM2-360M", "Qwen/Qwen2.5-0.5B"),
            "large": ("HuggingFaceTB/SmolLM2-1.7B", "Qwen/Qwen2.5-1.5B"),
        }
    )
    metric_names = tuple(DIRECTIONS)
    usage = USAGE
    limitations = "It goes on with any text; what it says may be wrong, also where it reads well."

    def example_inputs(self, columns: Mapping[str, str]) -> tuple[str, ...]:
        return ("a prompt",)

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        if config.text is not None or isinstance(config.label, tuple):
            return False
        return bool(recognize_prompts(rows, config.label))

    def prepare(self, config: DataConfig, seed: int) -> TaskData:
        raw = load_splits(config, seed)
        columns, notes = find_prompt_columns(raw.train, raw.origins["train"], config)
        read = [column for role, column in columns.items() if role != "label"]
        splits, unlabelled = labeled_splits(raw, read, columns.get("label"), what="completions")
        given, said = read_prompts(splits, columns, raw.origins, config.drop_empty)
        whole, made = create_splits(given, config, seed, self.strata)
        return TaskData(
            whole["train"],
            whole["validation"],
            whole.get("test"),
            (),
            columns,
            (*notes, *raw.notes, *unlabelled, *said, *made),
            fingerprint(self.name, whole, ()),
        )

    def describe(self, data: TaskData) -> str:
        rows = data.train
        if "messages" in rows.column_names:
            turns = float(np.mean([len(chat) for chat in column_values(rows, "messages")]))
            return f"Conversations of {turns:.1f} messages"
        said = column_values(rows, "label" if "label" in rows.column_names else "text")
        words = float(np.mean([len(text.split()) for text in said]))
        return f"{'Completions' if 'label' in rows.column_names else 'Texts'} of {words:.0f} words"

    def head_config(self, data: TaskData) -> dict[str, Any]:
        return {}

    def adapt_processor(self, processor: Any, data: TaskData) -> Any:
        if "messages" in data.train.column_names and processor.chat_template is None:
            processor.chat_template = PLAIN_TEMPLATE
        return processor

    def check_model(self, model: Any, tokenizer: Any) -> str:
        if end_of_text(tokenizer) is None:
            return "its tokenizer has no token that ends a text, so that it would never stop"
        if getattr(model.config, "is_encoder_decoder", False) or not model.can_generate():
            return "it does not write texts from the left to the right"
        return ""

    def encode(self, rows: Dataset, tokenizer: Any, max_length: int) -> Dataset:
        """As `Task.encode`; `_example` is the row that an input is of, `_bytes` the length of what is learnt of it."""
        inputs: list[list[int]] = []
        labels: list[list[int]] = []
        examples: list[int] = []
        sizes: list[float] = []
        for place, (parts, size) in enumerate(self._parts(rows, tokenizer)):
            tokens = [token for part in parts for token in part.tokens]
            learnt = [part.learnt for part in parts for _ in part.tokens]
            pieces = _blocks(tokens, learnt, max_length) if all(learnt[1:]) else [_fitted(tokens, learnt, max_length)]
            known = sum(learnt[1:])
            for piece, is_learnt in pieces:
                follows = [token if it else IGNORED for token, it in zip(piece[1:], is_learnt[1:], strict=True)]
                inputs.append(piece)
                labels.append([*follows, IGNORED])
                examples.append(place)
                sizes.append(size * sum(is_learnt[1:]) / max(known, 1))
        table = ragged_table({"input_ids": inputs, "labels": labels})
        table = table.append_column("_example", pa.array(examples, pa.int64()))
        return Dataset(table.append_column("_bytes", pa.array(sizes, pa.float64())))

    def _parts(self, rows: Dataset, tokenizer: Any) -> Iterator[tuple[list[Part], int]]:
        """Each row's tokens, and the bytes of what is learnt of it."""
        if "messages" in rows.column_names:
            for chat in column_values(rows, "messages"):
                yield parts_of_chat(chat, tokenizer)
            return
        texts = column_values(rows, "text")
        if "label" not in rows.column_names:
            for text in texts:
                yield parts_of_text(text, tokenizer)
            return
        for text, completion in zip(texts, column_values(rows, "label"), strict=True):
            yield parts_of_completion(text, completion, tokenizer)

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
        """The sum of the negative log-likelihoods of each input's learnt tokens, and how many they are."""
        import torch
        from torch.nn.functional import cross_entropy

        each = cross_entropy(logits.float().transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)
        return torch.stack([each.double().sum(1), (labels != IGNORED).sum(1).double()], dim=-1).cpu().numpy()

    def align_predictions(self, predictions: Predictions, split: Encoded) -> tuple[NDArray[Any], NDArray[Any]]:
        """Each text's negative log-likelihood; and its learnt tokens and bytes, [examples, 2]."""
        found, examples = np.asarray(predictions), np.asarray(column_values(split.inputs, "_example"))
        sums = np.zeros((len(split.rows), 3))
        np.add.at(sums[:, :2], examples, found)
        np.add.at(sums[:, 2], examples, np.asarray(column_values(split.inputs, "_bytes")))
        return sums[:, 0], sums[:, 1:]

    def scorer(self, metric: str, data: TaskData | None = None) -> Scorer:
        return load_metric(metric, _own_metric, DIRECTIONS, {}, np.asarray, SAMPLE)

    def finalize_model(self, model: Any, data: TaskData) -> None:
        model.config.use_cache = True  # off while it was trained
        model.config.trained_on = _format(data.train)

    def predict(
        self, model: Any, tokenizer: Any, rows: Sequence[str | list[Message]], max_length: int, batch_size: int = 64
    ) -> list[dict[str, Any]]:
        """As `Task.predict`, for prompts, or conversations to answer: what follows (`label`)."""
        trained_on, most = model.config.trained_on, model.generation_config.max_new_tokens
        prompts, shown = [], []
        room = max(max_length // 4, max_length - most)
        for place, row in enumerate(rows, 1):
            if trained_on == "messages" or not isinstance(row, str):
                given = [{"role": "user", "content": row}] if isinstance(row, str) else row
                chat = read_chat(given, f"input {place}", to_answer=True)
                parts, _ = parts_of_chat(chat, tokenizer, to_answer=True)
                shown.append(chat[-1]["content"] if chat else "")
            else:
                goes_on = trained_on == "texts"
                parts, _ = parts_of_completion(row, None, tokenizer, goes_on)
                shown.append(row)
            prompts.append([token for part in parts for token in part.tokens][-room:])
        said = write_texts(model, tokenizer, prompts, batch_size, "left", max_new_tokens=min(most, max_length - room))
        return [{"label": text, "text": prompt} for text, prompt in zip(said, shown, strict=True)]

    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[Any]:
        check_exists(path)
        if path.suffix.lower() == ".txt":
            return [line for line in decode(path, encoding).splitlines() if line.strip()]
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


def _format(rows: Dataset) -> str:
    """What a model was trained on, which tells how to ask it: messages, prompts or texts."""
    return "messages" if "messages" in rows.column_names else "prompts" if "label" in rows.column_names else "texts"


def _fitted(tokens: list[int], learnt: list[bool], most: int) -> tuple[list[int], list[bool]]:
    """At most `most` tokens: of the prompt the end stays, a quarter of them at least; then what is learnt is cut."""
    first = learnt.index(True)
    begin = max(0, first - max(most // 4, most - (len(tokens) - first)))
    return tokens[begin : begin + most], learnt[begin : begin + most]


def _blocks(tokens: list[int], learnt: list[bool], most: int) -> list[tuple[list[int], list[bool]]]:
    """Pieces of `most` tokens, each beginning with the last token of the one before: every token is foretold once."""
    starts = range(0, max(1, len(tokens) - 1), most - 1)
    return [(tokens[start : start + most], learnt[start : start + most]) for start in starts]


def _own_metric() -> "evaluate.Metric":
    from hpo.tasks.metrics.language_modeling import LanguageMetrics

    return LanguageMetrics()
