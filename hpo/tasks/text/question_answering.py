"""Extractive question answering: the part of a context that answers a question."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig
from hpo.data.checks import read_texts
from hpo.data.columns import column_values, columns_named, missing_column
from hpo.data.formats.detect import read_file
from hpo.data.labels.answers import (
    ANSWERS,
    CONTEXTS,
    QUESTIONS,
    START,
    answers_in_contexts,
    find_answer_columns,
    read_questions,
)
from hpo.data.splits.create import normalize_text
from hpo.errors import DataError
from hpo.tasks.base import Task
from hpo.tasks.baselines import fit_words, score_baseline, sentences
from hpo.tasks.inference import run_encoded
from hpo.tasks.metrics.scorer import object_array
from hpo.tasks.objective import Predictions
from hpo.tasks.task_data import Encoded, Examples, SourceColumns, TaskData
from hpo.tasks.text.answer_spans import best_answers, best_spans, context_mask, encode_windows
from hpo.tasks.text.base import check_exists
from hpo.tasks.text.token_classification import needs_fast

if TYPE_CHECKING:
    import evaluate
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHORTEST = 32  # tokens of an input: fewer leave no room for a context beside the question

USAGE = """\
model = AutoModelForQuestionAnswering.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
# This reads the start of a context of more tokens; `hpo predict` reads all of it, in windows.
texts = "a question", "a context"
inputs = tokenizer(*texts, truncation="only_second", max_length={max_length}, return_tensors="pt")
output = model(**inputs)
first, last = output.start_logits[0].argmax(), output.end_logits[0].argmax()
tokenizer.decode(inputs["input_ids"][0, first : last + 1])"""


class QuestionAnswering(Task):
    """A question and a context → the answer, a part of the context.

    A long context is read in overlapping windows; the answer is the best span of all of them (Devlin et al., 2019).
    Labels of an input are four token indices: the answer's first and last (0 and 0 where it is not in the window), and
    the first and last of the context.
    """

    name = "question-answering"
    auto_class = "AutoModelForQuestionAnswering"
    pipeline_tag = "question-answering"
    default_metric = "f1"
    search_space = "question-answering"
    label_noun = "answers"
    metric_directions = MappingProxyType({"f1": "maximize", "exact_match": "maximize", "loss": "minimize"})
    metric_aliases = MappingProxyType({"em": "exact_match"})
    metric_sample = (["a cat", "no"], [("the cat", "dog"), ("yes",)])
    usage = USAGE
    limitations = "It returns an answer to any question, also where the context holds none."

    def example_inputs(self, columns: Mapping[str, str]) -> tuple[str, ...]:
        return ("a question", "its context")

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        if isinstance(config.label, tuple):
            return False
        try:
            columns, _ = find_answer_columns(rows, "", config.text, config.label)
        except DataError:
            return False
        if config.text is not None and not answers_in_contexts(rows, columns):  # a pair of texts and a label
            return False
        return config.text is not None or all(columns_named(rows, names) for names in (QUESTIONS, CONTEXTS, ANSWERS))

    def find_columns(self, rows: Dataset, origin: str, config: DataConfig) -> SourceColumns:
        assert not isinstance(config.label, tuple)
        columns, notes = find_answer_columns(rows, origin, config.text, config.label)
        roles = dict(zip(("text", "text_pair", "label"), columns, strict=True))
        return SourceColumns(roles, columns[:2], columns[2], tuple(notes), (START,))

    def read_examples(
        self, splits: Mapping[str, Dataset], columns: SourceColumns, origins: Mapping[str, str], config: DataConfig
    ) -> Examples:
        question, context, answers = columns.roles.values()
        rows, notes = read_questions(splits, (question, context, answers), origins, config.drop_empty)
        return Examples(rows, (), tuple(notes))

    def group_keys(self, rows: Dataset) -> list[str]:
        """Return the context of each row: questions about one context stay in one split."""
        return [normalize_text(context) for context in column_values(rows, "text_pair")]

    def describe(self, data: TaskData) -> str:
        answers = [text for label in column_values(data.train, "label") for text in label["text"]]
        words = float(np.mean([len(text.split()) for text in answers]))
        return f"Answers of {words:.1f} words in {len(set(self.group_keys(data.train))):,} contexts"

    def head_config(self, data: TaskData) -> dict[str, Any]:
        return {"num_labels": 2}

    def check_model(self, model: Any, tokenizer: Any) -> str:
        return needs_fast(tokenizer)

    def encode(self, rows: Dataset, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Dataset:
        """Encode as `Task.encode`, with the columns `_example`, `_begin` and `_end` of `encode_windows`."""
        if max_length < SHORTEST:
            raise DataError(
                f"max_length: {max_length} tokens leave no room for a context: at least {SHORTEST} are needed."
            )
        columns = [column_values(rows, name) for name in ("text", "text_pair")]
        labels = column_values(rows, "label") if "label" in rows.column_names else None
        tables = []
        for start in range(0, len(rows), 500):
            questions, contexts = (column[start : start + 500] for column in columns)
            part = None if labels is None else labels[start : start + 500]
            tables.append(encode_windows(questions, contexts, part, start, tokenizer, max_length))
        return Dataset(pa.concat_tables(tables))

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        """Return the cross entropy over the first token and the context's tokens, the mean of start and end."""
        allowed = context_mask(logits, labels)
        allowed[:, 0] = True  # means "not in this window"
        scores = logits.float().masked_fill(~allowed[..., None], float("-inf")).log_softmax(1)
        correct = scores.gather(1, labels[:, None, :2]).squeeze(1)
        smooth = scores.masked_fill(~allowed[..., None], 0).sum(1) / allowed.sum(1)[:, None]
        return -((1 - label_smoothing) * correct + label_smoothing * smooth).sum() / 2

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        """Return the best span of each window: its score, first and last token."""
        return best_spans(logits, context_mask(logits, labels))

    def align_predictions(self, predictions: Predictions, split: Encoded) -> tuple[NDArray[Any], NDArray[Any]]:
        contexts = column_values(split.rows, "text_pair")
        answers = object_array([text for text, _ in best_answers(predictions, split.inputs, contexts)])
        return answers, _references(column_values(split.rows, "label"))

    def build_metric(self, data: TaskData | None) -> "evaluate.Metric":
        from hpo.tasks.metrics.squad import AnswerMetrics

        return AnswerMetrics()

    def metric_inputs(self, values: NDArray[Any], data: TaskData | None) -> list[Any]:
        return list(values)

    def predict(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[tuple[str, str]],
        max_length: int,
        batch_size: int = 64,
    ) -> list[dict[str, Any]]:
        """Predict the answer (`label`), its score, and return the question (`text`), for (question, context) pairs.

        The score is the sum of the logits of the answer's first and last token, comparable between answers to one
        question only.
        """
        import torch

        if not rows:
            return []
        if any(isinstance(row, str) or len(row) != 2 for row in rows):
            raise DataError("An input is a pair (question, context); a file has a column for each.")
        columns = {"text": [question for question, _ in rows], "text_pair": [context for _, context in rows]}
        encoded = self.encode(Dataset.from_dict(columns), tokenizer, max_length)
        begins = column_values(encoded, "_begin")

        def reduce(logits: "torch.Tensor", indices: list[int]) -> list[NDArray[Any]]:
            in_context = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device)
            for row, index in enumerate(indices):
                inside = torch.tensor(begins[index], device=logits.device) >= 0
                in_context[row, : len(inside)] = inside
            return list(best_spans(logits, in_context))

        spans = run_encoded(self, model, tokenizer, encoded, reduce, batch_size)
        answers = best_answers(spans, encoded, columns["text_pair"])
        return [
            {"label": answer, "score": score, "text": question}
            for (answer, score), question in zip(answers, columns["text"], strict=True)
        ]

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        """Return the sentence of the context that shares most words with the question, rare words counting more."""

        def fit(texts: list[list[str]], _answers: Any) -> Any:
            features = fit_words(texts[1])

            def nearest(texts: list[list[str]]) -> NDArray[Any]:
                parts = {context: sentences(context) or [context] for context in texts[1]}
                vectors = {context: features.transform(found) for context, found in parts.items()}
                pairs = list(zip(texts[1], features.transform(texts[0]), strict=True))
                best = [(vectors[context] @ question.T).toarray().argmax() for context, question in pairs]
                return object_array([parts[context][index] for (context, _), index in zip(pairs, best, strict=True)])

            return nearest

        return score_baseline("the sentence most like the question", fit, data, self.scorer(metric), _references)

    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[tuple[str, str]]:
        check_exists(path)
        rows = read_file(path, encoding)
        found = []
        for role, names in (("text", QUESTIONS), ("text_pair", CONTEXTS)):
            trained = columns[role]
            known = [trained] if trained in rows.column_names else columns_named(rows, names)
            if not known:
                raise missing_column(str(path), trained, rows.column_names, "the file")
            found.append(read_texts(rows, known[0], path.name))
        return list(zip(*found, strict=True))


def _references(labels: Sequence[Mapping[str, list[Any]]]) -> NDArray[Any]:
    return object_array([tuple(label["text"]) for label in labels])
