"""Token classification: a tag for each word, such as the kind of entity that it is part of."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig
from hpo.data.columns import column_values, missing_column
from hpo.data.formats.detect import read_file
from hpo.data.labels.label_lists import holds_lists
from hpo.data.labels.tags import (
    WORDS,
    are_entity_tags,
    check_tags,
    find_tag_columns,
    rarest_tag,
    read_tags,
    recognize_column,
)
from hpo.errors import DataError
from hpo.tasks.base import Task
from hpo.tasks.class_weights import balanced_weights, total_weight, weighted
from hpo.tasks.inference import run_encoded
from hpo.tasks.metrics.scorer import object_array
from hpo.tasks.objective import Predictions
from hpo.tasks.task_data import Encoded, Examples, SourceColumns, TaskData, describe_classes
from hpo.tasks.text.base import check_exists, ragged_table, read_lines

if TYPE_CHECKING:
    import evaluate
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORED = -100
USAGE = """\
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder", model_max_length={max_length})
# stride: a text of more tokens is read in several inputs, as in training
options = {"tokenizer": tokenizer, "aggregation_strategy": "first", "stride": 0}
tag = pipeline("token-classification", model="path/to/this/folder", **options)
tag("a text")"""
PIECES = re.compile(r"\w+|[^\w\s]")


class TokenClassification(Task):
    """A tag for each word.

    The first token of a word carries its tag. A text of more than `max_length` tokens becomes several inputs, so that
    every word is tagged. Canonical columns are `text` (words) and `label` (tag numbers).
    """

    name = "token-classification"
    auto_class = "AutoModelForTokenClassification"
    input_types = (str, list)
    pipeline_tag = "token-classification"
    default_metric = "f1"
    search_space = "token-encoders"
    label_noun = "tags"
    strata_name = "rarest tag"
    metric_directions = MappingProxyType(
        {
            "f1": "maximize",
            "precision": "maximize",
            "recall": "maximize",
            "f1_macro": "maximize",
            "accuracy": "maximize",
            "loss": "minimize",
        }
    )
    metric_aliases = MappingProxyType(
        {"f1_micro": "f1", "overall_f1": "f1", "overall_precision": "precision", "overall_recall": "recall"}
    )
    metric_sample = ([(0, 1, 0), (1, 1)], [(0, 1, 1), (1, 0)])
    supports_ranking = True
    supports_class_weights = True
    usage = USAGE
    limitations = (
        "It knows the tags above only. It learned from texts split into words and punctuation as its data was."
    )

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        if isinstance(config.text, tuple) or isinstance(config.label, tuple):
            return False
        try:
            columns = find_tag_columns(rows, "", config.text, config.label)[:2]
        except DataError:
            return False
        return all(holds_lists(rows, column) for column in columns)

    def check_config(self, config: DataConfig) -> None:
        if isinstance(config.text, tuple) or isinstance(config.label, tuple):
            raise DataError("data: token classification reads one column of words (text) and one of tags (label).")

    def find_columns(self, rows: Dataset, origin: str, config: DataConfig) -> SourceColumns:
        assert not isinstance(config.text, tuple) and not isinstance(config.label, tuple)
        words, tags, notes = find_tag_columns(rows, origin, config.text, config.label)
        return SourceColumns({"text": words, "label": tags}, (words,), tags, tuple(notes))

    def read_examples(
        self, splits: Mapping[str, Dataset], columns: SourceColumns, origins: Mapping[str, str], config: DataConfig
    ) -> Examples:
        tags = read_tags(splits, columns.roles["text"], columns.roles["label"], origins)
        return Examples(tags.rows, tags.names, tags.notes)

    def check_splits(
        self, splits: Mapping[str, Dataset], label_names: Sequence[str], origins: Mapping[str, str]
    ) -> list[str]:
        return check_tags(splits, label_names, origins)

    def describe(self, data: TaskData) -> str:
        return describe_classes(data.label_names, "tags")

    def suggest_metric(self, data: TaskData) -> tuple[str, str]:
        if are_entity_tags(data.label_names):
            return "f1", "f1 of full entities: a part of one is not a match."
        return "accuracy", "accuracy, since the tags are not those of entities (B-…, I-…, O)."

    def check_model(self, model: Any, tokenizer: Any) -> str:
        return needs_fast(tokenizer)

    def encode(self, rows: Dataset, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Dataset:
        """Encode as `Task.encode`; `_example` is the row of an input, `_word` the word that starts at each token."""
        texts = column_values(rows, "text")
        tags = column_values(rows, "label") if "label" in rows.column_names else None
        tables = [
            _encode_batch(
                texts[start : start + 1000],
                None if tags is None else tags[start : start + 1000],
                start,
                tokenizer,
                max_length,
            )
            for start in range(0, len(rows), 1000)
        ]
        return Dataset(pa.concat_tables(tables))

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        from torch.nn.functional import cross_entropy

        return cross_entropy(
            logits.float().transpose(1, 2),
            labels,
            None if self.class_weights is None else self.class_weights.to(logits.device),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=label_smoothing,
        )

    def target_count(self, labels: Any) -> float:
        return total_weight(labels, self.class_weights)

    def with_class_weights(self, labels: NDArray[Any], classes: int) -> Self:
        return weighted(self, balanced_weights(labels, classes))

    def strata(self, rows: Dataset) -> list[int]:
        return rarest_tag(rows)

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        tagged = logits.argmax(-1).cpu().numpy()
        known = (labels != IGNORED).cpu().numpy()
        return [row[mask] for row, mask in zip(tagged, known, strict=True)]

    def align_predictions(self, predictions: Predictions, split: Encoded) -> tuple[NDArray[Any], NDArray[Any]]:
        references = column_values(split.rows, "label")
        # A word without a token counts as the first class: O, where there is one.
        tags = [[0] * len(row) for row in references]
        inputs = zip(column_values(split.inputs, "_example"), column_values(split.inputs, "_word"), strict=True)
        for (example, words), predicted in zip(inputs, predictions, strict=True):
            for word, tag in zip((word for word in words if word >= 0), predicted.tolist(), strict=True):
                tags[example][word] = tag
        return object_array(tags), object_array(references)

    def build_metric(self, data: TaskData | None) -> "evaluate.Metric":
        from hpo.tasks.metrics.entities import EntityMetrics

        return EntityMetrics(() if data is None else data.label_names)

    def metric_inputs(self, values: NDArray[Any], data: TaskData | None) -> list[list[Any]]:
        """Return the names of tags, where `data` is known."""
        names = () if data is None else data.label_names
        return [[names[tag] if names else tag for tag in row] for row in values]

    def predict(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[str | Sequence[str]],
        max_length: int,
        batch_size: int = 64,
    ) -> list[dict[str, Any]]:
        """Predict `entities` (their text and kind), the `tags` of all words, and return the words as `text`.

        A row is a text, which is split into words and punctuation, or a list of words.
        """
        if not rows:
            return []
        words = [PIECES.findall(row) if isinstance(row, str) else list(row) for row in rows]
        encoded = self.encode(Dataset.from_dict({"text": words}), tokenizer, max_length)

        def reduce(logits: "torch.Tensor", indices: list[int]) -> list[list[int]]:
            return logits.argmax(-1).tolist()

        best = run_encoded(self, model, tokenizer, encoded, reduce, batch_size)
        tags = [[model.config.id2label[0]] * len(row) for row in words]
        inputs = zip(column_values(encoded, "_example"), column_values(encoded, "_word"), best, strict=True)
        for example, word_indices, classes in inputs:
            for word, number in zip(word_indices, classes, strict=False):
                if word >= 0:
                    tags[example][word] = model.config.id2label[number]
        return [
            {"entities": _entities(row, tagged), "tags": tagged, "text": row}
            for row, tagged in zip(words, tags, strict=True)
        ]

    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[str | list[str]]:
        check_exists(path)
        if path.suffix.lower() == ".txt":
            return list(read_lines(path, encoding))
        rows = read_file(path, encoding)
        column = columns["text"] if columns["text"] in rows.column_names else recognize_column(rows, WORDS)
        if column is None:
            raise missing_column(str(path), columns["text"], rows.column_names, "the file")
        return [
            value if isinstance(value, str) else list(map(str, value or ())) for value in column_values(rows, column)
        ]

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        """Assign each word its most frequent tag in training; an unknown word the most frequent tag of all."""
        scorer = self.scorer(metric, data)
        if data.test is None or scorer.name == "loss":
            return None
        counts: dict[str, NDArray[Any]] = {}
        for row, tags in zip(column_values(data.train, "text"), column_values(data.train, "label"), strict=True):
            for word, tag in zip(row, tags, strict=True):
                counts.setdefault(word.lower(), np.zeros(len(data.label_names), dtype=int))[tag] += 1
        most_frequent = int(sum(counts.values(), np.zeros(len(data.label_names), dtype=int)).argmax())
        best = {word: int(count.argmax()) for word, count in counts.items()}
        predicted = [
            [best.get(word.lower(), most_frequent) for word in row] for row in column_values(data.test, "text")
        ]
        scores = scorer(object_array(predicted), object_array(column_values(data.test, "label")))
        return "each word's most frequent tag", scores[scorer.name]


def needs_fast(tokenizer: Any) -> str:
    """Return why a tokenizer cannot return the offsets of its tokens in the text; an empty string where it can."""
    if getattr(tokenizer, "is_fast", False):
        return ""
    return "its tokenizer does not return the offsets of tokens in the text: one with a tokenizer.json is needed"


def _encode_batch(
    texts: list[list[str]],
    tags: list[list[int]] | None,
    first_row: int,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
) -> pa.Table:
    """Encode words joined by spaces, and find them by their offsets: every fast tokenizer reads them as plain text."""
    encoded = tokenizer(
        [" ".join(words) for words in texts],
        truncation=True,
        max_length=max_length,
        return_attention_mask=False,
        return_offsets_mapping=True,
        return_overflowing_tokens=True,
    )
    starts = [np.cumsum([0, *(len(word) + 1 for word in words)])[:-1] for words in texts]
    word_indices, kept, labels, reached = [], [], [], dict.fromkeys(range(len(texts)), -1)
    for index, example in enumerate(encoded["overflow_to_sample_mapping"]):
        words = _words_started(encoded["offset_mapping"][index], starts[example], texts[example], reached[example])
        if not any(word >= 0 for word in words):
            continue  # only the rest of a very long word
        reached[example] = max(words)
        kept.append(index)
        word_indices.append(words)
        if tags is not None:
            labels.append([tags[example][word] if word >= 0 else IGNORED for word in words])
    names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
    columns = {name: [encoded[name][index] for index in kept] for name in names} | {"_word": word_indices}
    table = ragged_table(columns | ({} if tags is None else {"labels": labels}))
    examples = [first_row + encoded["overflow_to_sample_mapping"][index] for index in kept]
    return table.append_column("_example", pa.array(examples, pa.int64()))


def _words_started(
    offsets: Sequence[tuple[int, int]], starts: NDArray[Any], words: Sequence[str], reached: int
) -> list[int]:
    """Return for each token the index of the word that starts with it, else -1; words up to `reached` are done."""
    found = []
    for start, end in offsets:
        # By a token's last character: some tokenizers count the space before a word to its first token.
        word = int(np.searchsorted(starts, end - 1, side="right")) - 1 if end > start else -1
        inside = word > reached and end - 1 < starts[word] + len(words[word])
        found.append(word if inside else -1)
        reached = word if inside else reached
    return found


def _entities(words: Sequence[str], tags: Sequence[str]) -> list[dict[str, str]]:
    from hpo.tasks.metrics.entities import entities

    return [{"text": " ".join(words[first : last + 1]), "label": kind} for kind, first, last in entities(tags)]
