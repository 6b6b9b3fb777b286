"""Multiple choice: a question and some choices, of which one is right; each row has choices of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig
from hpo.data.columns import column_values
from hpo.data.formats.detect import read_file
from hpo.data.labels.choices import (
    ChoiceColumns,
    choices_with_prefix,
    count_choices,
    find_choice_columns,
    pad_choices,
    read_choice_rows,
    read_choices,
)
from hpo.errors import DataError
from hpo.tasks.base import Task
from hpo.tasks.baselines import fit_words, score_baseline
from hpo.tasks.inference import run_encoded
from hpo.tasks.objective import Batch, Predictions
from hpo.tasks.task_data import Encoded, Examples, SourceColumns, TaskData
from hpo.tasks.text.base import check_exists

if TYPE_CHECKING:
    import evaluate
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

USAGE = """\
model = AutoModelForMultipleChoice.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
choices = ["a choice", "another choice"]
texts = ["a question"] * len(choices), choices
inputs = tokenizer(*texts, truncation=True, max_length={max_length}, padding=True, return_tensors="pt")
scores = model(**{name: tensor[None] for name, tensor in inputs.items()}).logits[0]
choices[scores.argmax()]"""


class MultipleChoice(Task):
    """A question and its choices → the right one.

    Canonical columns are `text` (the question), `text_pair` (the choices, padded with empty ones to the most of any
    row) and `label`. An input is all texts of a row: entries of its columns are the tokens of all choices at one
    position. Labels are two numbers: the right choice, and the number of choices.
    """

    name = "multiple-choice"
    auto_class = "AutoModelForMultipleChoice"
    pipeline_tag = "multiple-choice"
    default_metric = "accuracy"
    label_noun = "right choices"
    strata_name = "index of the right choice"
    metric_directions = MappingProxyType({"accuracy": "maximize", "loss": "minimize"})
    usage = USAGE
    limitations = "It picks one of the choices it is given, also where none is right."

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        try:
            return not isinstance(config.label, tuple) and bool(self.find_columns(rows, "", config))
        except DataError:
            return False

    def find_columns(self, rows: Dataset, origin: str, config: DataConfig) -> SourceColumns:
        assert not isinstance(config.label, tuple)
        columns = find_choice_columns(rows, origin, config.text, config.label)
        roles = columns.by_role()
        notes = [f"{role}: recognized in column '{column}'" for role, column in roles.items() if not config.text]
        return SourceColumns(roles, (*columns.question, *columns.choices), columns.label, tuple(notes))

    def read_examples(
        self, splits: Mapping[str, Dataset], columns: SourceColumns, origins: Mapping[str, str], config: DataConfig
    ) -> Examples:
        questions = tuple(column for role, column in columns.roles.items() if role.startswith("text"))
        choices, prefix, label = columns.inputs[len(questions) :], columns.roles["choices"], columns.roles["label"]
        rows, notes = read_choices(splits, ChoiceColumns(questions, choices, prefix, label), origins, config.drop_empty)
        return Examples(rows, (), tuple(notes))

    def strata(self, rows: Dataset) -> list[int]:
        return column_values(rows, "label")

    def describe(self, data: TaskData) -> str:
        counts = [count_choices(choices) for choices in column_values(data.train, "text_pair")]
        return f"{min(counts)} to {max(counts)} choices" if min(counts) < max(counts) else f"{counts[0]} choices"

    def head_config(self, data: TaskData) -> dict[str, Any]:
        return {"num_labels": 1}

    def check_model(self, model: Any, tokenizer: Any) -> str:
        return "its tokenizer has no padding token." if tokenizer.pad_token_id is None else ""

    def encode(self, rows: Dataset, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Dataset:
        """Encode as `Task.encode`: [tokens, choices] per row, and an `attention_mask` that masks each choice's padding.

        `length` counts the tokens of all choices.
        """
        texts, choices = column_values(rows, "text"), column_values(rows, "text_pair")
        encoded = tokenizer(*_paired(texts, choices), truncation=True, max_length=max_length)
        many, pads = len(choices[0]), {"input_ids": tokenizer.pad_token_id}
        lengths = np.array([len(ids) for ids in encoded["input_ids"]]).reshape(-1, many).max(1)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        columns: dict[str, pa.Array] = {"length": pa.array(lengths * many)}
        for name in encoded:
            flat = np.full((offsets[-1], many), pads.get(name, 0), np.int32)
            for index, tokens in enumerate(encoded[name]):
                start = offsets[index // many]
                flat[start : start + len(tokens), index % many] = tokens
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), many)
            columns[name] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), vectors)
        if "label" in rows.column_names:
            labels = [
                [label, count_choices(row)] for label, row in zip(column_values(rows, "label"), choices, strict=True)
            ]
            columns["labels"] = pa.array(labels, pa.list_(pa.int64(), 2))
        return Dataset(pa.table(columns))

    def prepare_batch(self, batch: Batch, processor: Any) -> Batch:
        """Transpose [inputs, tokens, choices] to [inputs, choices, tokens]."""
        return {name: t.transpose(1, 2).contiguous() if t.ndim == 3 else t for name, t in batch.items()}

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        """Return the cross entropy over a row's own choices."""
        scores = _mask_padding(logits.float(), labels[:, 1]).log_softmax(1)
        correct = scores.gather(1, labels[:, :1]).squeeze(1)
        smooth = scores.masked_fill(scores == float("-inf"), 0).sum(1) / labels[:, 1]
        return -((1 - label_smoothing) * correct + label_smoothing * smooth).sum()

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        return _mask_padding(logits, labels[:, 1]).argmax(1).cpu().numpy()

    def align_predictions(self, predictions: Predictions, split: Encoded) -> tuple[NDArray[Any], NDArray[Any]]:
        return np.asarray(predictions), np.asarray(split.labels)[:, 0]

    def build_metric(self, data: TaskData | None) -> "evaluate.Metric":
        from hpo.tasks.metrics.classification import AccuracyMetric

        return AccuracyMetric()

    def predict(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[tuple[Any, ...]],
        max_length: int,
        batch_size: int = 64,
    ) -> list[dict[str, Any]]:
        """Predict for (question, choices) or (context, question, choices), choices as a list of two or more texts.

        Results are the choice's text (`label`), its probability among the choices (`score`), its index (`choice`), and
        the question (`text`).
        """
        import torch

        if not rows:
            return []
        if any(isinstance(row, str) or isinstance(row[-1], str) or len(row[-1]) < 2 for row in rows):
            raise DataError("An input is (question, [choice, choice, …]), with two choices at least.")
        questions, choices = [" ".join(row[:-1]) for row in rows], [list(row[-1]) for row in rows]

        counts = [count_choices(row) for row in choices]
        columns = {"text": questions, "text_pair": pad_choices(choices, max(map(len, choices)))}
        encoded = self.encode(Dataset.from_dict(columns), tokenizer, max_length)

        def reduce(logits: torch.Tensor, indices: list[int]) -> list[tuple[float, int]]:
            own = torch.tensor([counts[index] for index in indices], device=logits.device)
            scores, best = _mask_padding(logits, own).softmax(1).max(1)
            return list(zip(scores.tolist(), best.tolist(), strict=True))

        predictions = run_encoded(self, model, tokenizer, encoded, reduce, batch_size)
        return [
            {"label": row[best], "score": score, "choice": best, "text": question}
            for question, row, (score, best) in zip(questions, choices, predictions, strict=True)
        ]

    def example_inputs(self, columns: Mapping[str, str]) -> tuple[str, ...]:
        question = ("a context", "a question") if "text_pair" in columns else ("a question",)
        return (*question, "a choice", "another choice")

    def parse_arguments(self, arguments: Sequence[str], columns: Mapping[str, str]) -> list[Any] | None:
        texts = 2 if "text_pair" in columns else 1
        return [(*arguments[:texts], list(arguments[texts:]))] if len(arguments) >= texts + 2 else None

    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[tuple[Any, ...]]:
        check_exists(path)
        rows = read_file(path, encoding)
        trained = tuple(column for role, column in columns.items() if role != "label")
        exist = all(name in rows.column_names for name in trained[:-1]) and choices_with_prefix(rows, trained[-1])
        found = find_choice_columns(rows, path.name, trained if exist else None, "")
        return [(*row.question, row.choices) for row in read_choice_rows(rows, found, path.name)]

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        """Return how far the choices alone lead: logistic regression on their words, without the question."""
        from sklearn.linear_model import LogisticRegression

        def fit(columns: list[list[Any]], labels: Any) -> Any:
            given = [[choice for choice in row if choice] for row in columns[1]]
            features = fit_words([choice for row in given for choice in row])
            correct = np.concatenate([np.arange(len(row)) == label for row, label in zip(given, labels, strict=True)])
            model = LogisticRegression(C=10, max_iter=1000)
            model.fit(features.transform([choice for row in given for choice in row]), correct)

            def best(row: list[str]) -> int:
                scores = model.decision_function(features.transform([choice for choice in row if choice]))
                return int(scores.argmax())

            return lambda columns: np.array([best(row) for row in columns[1]])

        return score_baseline("TF-IDF of the choices + logistic regression", fit, data, self.scorer(metric))


def _paired(questions: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """Return the question and the choice of every choice; padding is replaced by the first choice, which is masked."""
    texts = [text for text, row in zip(questions, rows, strict=True) for _ in row]
    return texts, [choice or row[0] for row in rows for choice in row]


def _mask_padding(scores: "torch.Tensor", counts: "torch.Tensor") -> "torch.Tensor":
    """Return scores [rows, choices] with -inf for those beyond a row's own `counts`."""
    import torch

    padding = torch.arange(scores.shape[1], device=scores.device)[None] >= counts[:, None]
    return scores.masked_fill(padding, float("-inf"))
