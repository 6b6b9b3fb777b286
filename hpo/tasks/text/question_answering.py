"""Extractive question answering: the part of a context that answers a question."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig
from hpo.core.direction import Direction
from hpo.data.checks import read_texts
from hpo.data.columns import column_values, columns_named, missing_column
from hpo.data.labels.answers import ANSWERS, CONTEXTS, QUESTIONS, find_answer_columns, read_questions
from hpo.data.readers import read_file
from hpo.data.sources import load_splits
from hpo.data.splits.create import create_splits, normalize_text
from hpo.data.splits.labeled import labeled_splits
from hpo.errors import DataError
from hpo.tasks.base import Predictions, Task
from hpo.tasks.baselines import fit_words, measured
from hpo.tasks.generation.summarization import sentences
from hpo.tasks.metrics.scorer import Scorer, load_metric, one_each
from hpo.tasks.task_data import Encoded, TaskData, fingerprint
from hpo.tasks.text.base import check_exists, ragged_table, run_model
from hpo.tasks.text.token_classification import needs_fast

if TYPE_CHECKING:
    import evaluate
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DIRECTIONS: dict[str, Direction] = {"f1": "maximize", "exact_match": "maximize", "loss": "minimize"}
ALIASES = {"em": "exact_match"}
SAMPLE = (["a cat", "no"], [("the cat", "dog"), ("yes",)])
LONGEST_ANSWER = 64  # tokens
SHORTEST = 32  # tokens of an input: below, there is no room for windows beside a question

USAGE = """\
model = AutoModelForQuestionAnswering.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
inputs = tokenizer("a question", "a context", return_tensors="pt")
output = model(**inputs)
first, last = output.start_logits[0].argmax(), output.end_logits[0].argmax()
tokenizer.decode(inputs["input_ids"][0, first : last + 1])"""


class QuestionAnswering(Task):
    """A question and a context → the answer, a part of the context. See `Task` for what each method promises.

    A long context is read in windows that overlap; the answer is the best span of all of them (Devlin et al., 2019).
    Labels of an input are four token numbers: the answer's first and last (0 and 0 where the window does not hold it),
    and the window's first and last of the context.
    """

    name = "question-answering"
    auto_class = "AutoModelForQuestionAnswering"
    pipeline_tag = "question-answering"
    default_metric = "f1"
    search_space = "question-answering"
    metric_names = tuple(DIRECTIONS)
    usage = USAGE
    limitations = "It gives an answer to any question, also where the context holds none."

    def example_inputs(self, columns: Mapping[str, str]) -> tuple[str, ...]:
        return ("a question", "its context")

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        if isinstance(config.label, tuple):
            return False
        try:
            find_answer_columns(rows, "", config.text, config.label)
        except DataError:
            return False
        return config.text is not None or all(columns_named(rows, names) for names in (QUESTIONS, CONTEXTS, ANSWERS))

    def prepare(self, config: DataConfig, seed: int) -> TaskData:
        if isinstance(config.label, tuple):
            raise DataError("data.label: this task reads one column of answers.")
        raw = load_splits(config, seed)
        columns, notes = find_answer_columns(raw.train, raw.origins["train"], config.text, config.label)
        splits, unlabelled = labeled_splits(raw, columns[:2], columns[2], what="answers")
        given, said = read_questions(splits, columns, raw.origins, config.drop_empty)
        whole, made = create_splits(given, config, seed, lambda rows: [0] * len(rows), _contexts)
        return TaskData(
            whole["train"],
            whole["validation"],
            whole.get("test"),
            (),
            dict(zip(("text", "text_pair", "label"), columns, strict=True)),
            (*notes, *raw.notes, *unlabelled, *said, *made),
            fingerprint(self.name, whole, ()),
        )

    def describe(self, data: TaskData) -> str:
        answers = [text for label in column_values(data.train, "label") for text in label["text"]]
        words = float(np.mean([len(text.split()) for text in answers]))
        return f"Answers of {words:.1f} words in {len(set(_contexts(data.train))):,} contexts"

    def head_config(self, data: TaskData) -> dict[str, Any]:
        return {"num_labels": 2}

    def check_model(self, model: Any, tokenizer: Any) -> str:
        return needs_fast(tokenizer)

    def encode(self, rows: Dataset, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Dataset:
        """As `Task.encode`; `_example` is the row that an input is of, `_begin` and `_end` are its tokens' characters.

        They are places in the context, -1 where a token is not of it.
        """
        if max_length < SHORTEST:
            raise DataError(f"max_length: {max_length} tokens leave no room for a context: {SHORTEST} at least.")
        columns = [column_values(rows, name) for name in ("text", "text_pair")]
        labels = column_values(rows, "label") if "label" in rows.column_names else None
        tables = []
        for start in range(0, len(rows), 500):
            questions, contexts = (column[start : start + 500] for column in columns)
            part = None if labels is None else labels[start : start + 500]
            tables.append(_encode_batch(questions, contexts, part, start, tokenizer, max_length))
        return Dataset(pa.concat_tables(tables))

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        """Cross entropy over the first token and those of the context, the mean of start and end."""
        allowed = _of_context(logits, labels)
        allowed[:, 0] = True  # stands for "not in this window"
        scores = logits.float().masked_fill(~allowed[..., None], float("-inf")).log_softmax(1)
        right = scores.gather(1, labels[:, None, :2]).squeeze(1)
        smooth = scores.masked_fill(~allowed[..., None], 0).sum(1) / allowed.sum(1)[:, None]
        return -((1 - label_smoothing) * right + label_smoothing * smooth).sum() / 2

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        """The best span of each window: its score, first and last token."""
        return best_spans(logits, _of_context(logits, labels))

    def align_predictions(self, predictions: Predictions, split: Encoded) -> tuple[NDArray[Any], NDArray[Any]]:
        contexts = column_values(split.rows, "text_pair")
        said = one_each([text for text, _ in best_answers(predictions, split.inputs, contexts)])
        return said, _right_answers(column_values(split.rows, "label"))

    def scorer(self, metric: str, data: TaskData | None = None) -> Scorer:
        return load_metric(metric, _own_metric, DIRECTIONS, ALIASES, list, SAMPLE)

    def predict(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[tuple[str, str]],
        max_length: int,
        batch_size: int = 64,
    ) -> list[dict[str, Any]]:
        """As `Task.predict`, for pairs of question and context: the answer (`label`), its score, and the question.

        The score is the sum of the logits of its first and last token: it compares answers to one question, no more.
        """
        import torch

        if not rows:
            return []
        if any(isinstance(row, str) or len(row) != 2 for row in rows):
            raise DataError("An input is a pair (question, context); a file has a column for each.")
        columns = {"text": [question for question, _ in rows], "text_pair": [context for _, context in rows]}
        encoded = self.encode(Dataset.from_dict(columns), tokenizer, max_length)
        begins = column_values(encoded, "_begin")
        spans: list[Any] = [None] * len(encoded)
        for places, logits in run_model(model, tokenizer, encoded, batch_size):
            of_context = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device)
            for row, place in enumerate(places):
                known = torch.tensor(begins[place], device=logits.device) >= 0
                of_context[row, : len(known)] = known
            for place, span in zip(places, best_spans(logits, of_context), strict=True):
                spans[place] = span
        found = best_answers(spans, encoded, columns["text_pair"])
        return [
            {"label": answer, "score": score, "text": question}
            for (answer, score), question in zip(found, columns["text"], strict=True)
        ]

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        """The sentence of the context with most of the question's words, the rare ones before the common."""

        def fit(texts: list[list[str]], _answers: Any) -> Any:
            features = fit_words(texts[1])

            def nearest(texts: list[list[str]]) -> NDArray[Any]:
                parts = {context: sentences(context) or [context] for context in texts[1]}
                vectors = {context: features.transform(found) for context, found in parts.items()}
                asked = features.transform(texts[0])
                places = [
                    (vectors[context] @ row.T).toarray().argmax() for context, row in zip(texts[1], asked, strict=True)
                ]
                return one_each([parts[context][place] for context, place in zip(texts[1], places, strict=True)])

            return nearest

        return measured("the sentence most like the question", fit, data, self.scorer(metric), _right_answers)

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


def _right_answers(labels: Sequence[Mapping[str, list[Any]]]) -> NDArray[Any]:
    return one_each([tuple(label["text"]) for label in labels])


def best_spans(logits: "torch.Tensor", of_context: "torch.Tensor") -> NDArray[Any]:
    """For each window score, first and last token of its best span of up to 64 tokens, [inputs, 3]; -inf: no span."""
    import torch

    scores = logits.float().masked_fill(~of_context[..., None], float("-inf"))
    start, end = scores[..., 0], scores[..., 1]
    most = min(LONGEST_ANSWER, end.shape[1])
    padded = torch.nn.functional.pad(end, (0, most - 1), value=float("-inf"))
    # [inputs, first token, length]: the best end for each start, without a matrix of all pairs
    best_end, length = padded.unfold(1, most, 1).max(-1)
    best, first = (start + best_end).max(-1)
    last = first + length.gather(1, first[:, None]).squeeze(1)
    return torch.stack([best.double(), first.double(), last.double()], dim=-1).cpu().numpy()


def best_answers(spans: Predictions, inputs: Dataset, contexts: Sequence[str]) -> list[tuple[str, float]]:
    """For each context the text of the best of its windows' spans, and its score."""
    found: list[tuple[str, float]] = [("", float("-inf"))] * len(contexts)
    columns = (column_values(inputs, name) for name in ("_example", "_begin", "_end"))
    for (score, first, last), example, begins, ends in zip(spans, *columns, strict=True):
        if score > found[example][1]:
            text = contexts[example][begins[int(first)] : ends[int(last)]]
            found[example] = (text.strip(), float(score))
    return found


def _of_context(logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    """Which tokens are of the context, [inputs, tokens]."""
    import torch

    places = torch.arange(logits.shape[1], device=logits.device)[None]
    return (places >= labels[:, 2:3]) & (places <= labels[:, 3:4])


def _contexts(rows: Dataset) -> list[str]:
    return [normalize_text(context) for context in column_values(rows, "text_pair")]


def _encode_batch(
    questions: list[str],
    contexts: list[str],
    labels: list[dict[str, list[Any]]] | None,
    first_row: int,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
) -> pa.Table:
    """Windows that overlap by a quarter of `max_length`, at most 128 tokens; a question takes at most a third of it."""
    encoded = tokenizer(
        _shortened(questions, tokenizer, max_length // 3),
        contexts,
        truncation="only_second",
        max_length=max_length,
        stride=min(128, max_length // 4),
        return_attention_mask=False,
        return_offsets_mapping=True,
        return_overflowing_tokens=True,
    )
    examples = encoded["overflow_to_sample_mapping"]
    begins, ends, marked, kept = [], [], [], []
    for place, example in enumerate(examples):
        of_context = [part == 1 for part in encoded.sequence_ids(place)]
        if not any(of_context):
            continue  # an empty context
        offsets = encoded["offset_mapping"][place]
        begins.append([begin if of else -1 for of, (begin, _) in zip(of_context, offsets, strict=True)])
        ends.append([end if of else -1 for of, (_, end) in zip(of_context, offsets, strict=True)])
        kept.append(place)
        if labels is not None:
            marked.append(_mark(begins[-1], ends[-1], labels[example]))
    columns = {n: [encoded[n][place] for place in kept] for n in ("input_ids", "token_type_ids") if n in encoded}
    table = ragged_table({**columns, "_begin": begins, "_end": ends})
    if labels is not None:
        flat = pa.array(np.array(marked, dtype=np.int64).ravel())
        table = table.append_column("labels", pa.FixedSizeListArray.from_arrays(flat, 4))
    return table.append_column("_example", pa.array([first_row + examples[place] for place in kept], pa.int64()))


def _mark(begins: list[int], ends: list[int], answers: dict[str, list[Any]]) -> tuple[int, int, int, int]:
    """The tokens of the first answer that the window holds, and those of the context."""
    inside = [place for place, begin in enumerate(begins) if begin >= 0]
    first, last = inside[0], inside[-1]
    for text, start in zip(answers["text"], answers["answer_start"], strict=True):
        stop = start + len(text)
        if begins[first] <= start and stop <= ends[last]:
            held = [place for place in inside if ends[place] > start and begins[place] < stop]
            if held:
                return held[0], held[-1], first, last
    return 0, 0, first, last


def _shortened(questions: list[str], tokenizer: "PreTrainedTokenizerBase", most: int) -> list[str]:
    """Questions cut to `most` tokens: one that fills the input would leave no room for the context."""
    encoded = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True)
    return [
        question if len(offsets) <= most else question[: offsets[most - 1][1]]
        for question, offsets in zip(questions, encoded["offset_mapping"], strict=True)
    ]


def _own_metric() -> "evaluate.Metric":
    from hpo.tasks.metrics.squad import AnswerMetrics

    return AnswerMetrics()
