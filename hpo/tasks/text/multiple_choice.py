"""Multiple choice: a question and some choices, of which one is right; each row has choices of its own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig
from hpo.core.direction import Direction
from hpo.data.checks import find_empty, read_texts
from hpo.data.columns import column_values, columns_named, find_text_columns, group_column, missing_column
from hpo.data.readers import read_file
from hpo.data.sources import load_splits
from hpo.data.splits.create import create_splits
from hpo.data.splits.labeled import labeled_splits
from hpo.errors import DataError
from hpo.tasks.base import Batch, Predictions, Task
from hpo.tasks.baselines import fit_words, measured
from hpo.tasks.metrics.scorer import Scorer, load_metric
from hpo.tasks.task_data import Encoded, TaskData, fingerprint
from hpo.tasks.text.base import check_exists

if TYPE_CHECKING:
    import evaluate
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Compared without case. What a question is about stands before it.
CONTEXTS = ("context", "passage", "article", "paragraph", "premise", "ctx", "sent1", "startphrase", "goal")
QUESTIONS = ("question", "question_stem", "query", "sent2")
LISTS = ("choices", "options", "endings", "answers")
NUMBER = r"[ _-]?(\d|[a-h])"
NUMBERED = re.compile("(choice|option|ending|solution|sol|answer)" + NUMBER, re.IGNORECASE)
LABELS = ("label", "answer", "answerkey", "answer_key", "answer_idx", "gold", "correct", "target")
DIRECTIONS: dict[str, Direction] = {"accuracy": "maximize", "loss": "minimize"}

USAGE = """\
model = AutoModelForMultipleChoice.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
choices = ["a choice", "another choice"]
inputs = tokenizer(["a question"] * len(choices), choices, padding=True, return_tensors="pt")
scores = model(**{name: tensor[None] for name, tensor in inputs.items()}).logits[0]
choices[scores.argmax()]"""


@dataclass(frozen=True)
class Columns:
    """The columns of what is asked (a context, a question, or both), of the choices, and of the right one.

    `choices` is a column of lists; or several columns, a choice each, whose names begin with `beginning`.
    """

    asked: tuple[str, ...]
    choices: tuple[str, ...]
    beginning: str
    label: str

    def by_role(self) -> dict[str, str]:
        asked = dict(zip(("text", "text_pair"), self.asked, strict=False))
        return {**asked, "choices": self.beginning, "label": self.label}


@dataclass(frozen=True)
class Asked:
    """A row as it was read: what is asked (a text, or a context and a question), the choices, and the label as written.

    `called` is what the data calls the choices (A, B, …), where it does.
    """

    asked: tuple[str, ...]
    choices: list[str]
    called: list[str]
    label: Any

    @property
    def text(self) -> str:
        return " ".join(filter(None, self.asked))

    @property
    def number(self) -> int | None:
        """The label as a whole number, where it is one."""
        label = self.label
        written = str(int(label) if isinstance(label, float) and label.is_integer() else label).strip()
        return int(written) if written.isdecimal() else None

    def right(self, first: int) -> int | None:
        """Where the right choice stands, from 0, if numbers count from `first`; None where it is none of them."""
        written = str(self.label).strip()
        if written in self.called:
            return self.called.index(written)
        if self.number is not None:
            place = self.number - first
        elif written in self.choices:
            place = self.choices.index(written)
        else:
            place = "abcdefgh".find(written.lower()) if len(written) == 1 else -1
        return place if 0 <= place < len(self.choices) else None


class MultipleChoice(Task):
    """A question and its choices → the right one. See `Task` for what each method promises.

    Prepared rows have `text` (what is asked), `text_pair` (the choices; empty ones up to the most of any row) and
    `label`. An input is all texts of a row: entries of its columns are the tokens of all choices at one place. Labels
    are two numbers: the right choice, and how many there are.
    """

    name = "multiple-choice"
    auto_class = "AutoModelForMultipleChoice"
    pipeline_tag = "multiple-choice"
    default_metric = "accuracy"
    metric_names = tuple(DIRECTIONS)
    usage = USAGE
    limitations = "It picks one of the choices it is given, also where none is right."

    def example_inputs(self, columns: Mapping[str, str]) -> tuple[str, ...]:
        asked = ("a context", "a question") if "text_pair" in columns else ("a question",)
        return (*asked, "a choice", "another choice")

    def parse_arguments(self, words: Sequence[str], columns: Mapping[str, str]) -> list[Any] | None:
        asked = 2 if "text_pair" in columns else 1
        return [(*words[:asked], list(words[asked:]))] if len(words) >= asked + 2 else None

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        try:
            return not isinstance(config.label, tuple) and bool(find_columns(rows, "", config.text, config.label))
        except DataError:
            return False

    def prepare(self, config: DataConfig, seed: int) -> TaskData:
        if isinstance(config.label, tuple):
            raise DataError("data.label: this task reads one column, which tells the right choice.")
        raw = load_splits(config, seed)
        columns = find_columns(raw.train, raw.origins["train"], config.text, config.label)
        splits, unlabelled = labeled_splits(
            raw, (*columns.asked, *columns.choices), columns.label, what="right choices"
        )
        given, said = canonical(splits, columns, raw.origins, config.drop_empty)
        whole, made = create_splits(given, config, seed, self.strata, stratified_by="place of the right choice")
        roles = columns.by_role()
        recognised = [f"{role}: recognized in column '{column}'" for role, column in roles.items() if not config.text]
        return TaskData(
            whole["train"],
            whole["validation"],
            whole.get("test"),
            (),
            roles,
            (*recognised, *raw.notes, *unlabelled, *said, *made),
            fingerprint(self.name, whole, ()),
        )

    def describe(self, data: TaskData) -> str:
        counts = [_count(choices) for choices in column_values(data.train, "text_pair")]
        return f"{min(counts)} to {max(counts)} choices" if min(counts) < max(counts) else f"{counts[0]} choices"

    def head_config(self, data: TaskData) -> dict[str, Any]:
        return {"num_labels": 1}

    def check_model(self, model: Any, tokenizer: Any) -> str:
        return "its tokenizer has no padding token." if tokenizer.pad_token_id is None else ""

    def strata(self, rows: Dataset) -> list[int]:
        return column_values(rows, "label")

    def encode(self, rows: Dataset, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Dataset:
        """As `Task.encode`: [places, choices] tokens a row, with an `attention_mask` that tells each choice's own."""
        texts, choices = column_values(rows, "text"), column_values(rows, "text_pair")
        encoded = tokenizer(*_paired(texts, choices), truncation=True, max_length=max_length)
        many, pads = len(choices[0]), {"input_ids": tokenizer.pad_token_id}
        lengths = np.array([len(ids) for ids in encoded["input_ids"]]).reshape(-1, many).max(1)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        columns: dict[str, pa.Array] = {"length": pa.array(lengths * many)}
        for name in encoded:
            flat = np.full((offsets[-1], many), pads.get(name, 0), np.int32)
            for place, tokens in enumerate(encoded[name]):
                start = offsets[place // many]
                flat[start : start + len(tokens), place % many] = tokens
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), many)
            columns[name] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), vectors)
        if "label" in rows.column_names:
            right = [[label, _count(row)] for label, row in zip(column_values(rows, "label"), choices, strict=True)]
            columns["labels"] = pa.array(right, pa.list_(pa.int64(), 2))
        return Dataset(pa.table(columns))

    def prepare_batch(self, batch: Batch, processor: Any) -> Batch:
        return {name: t.transpose(1, 2).contiguous() if t.ndim == 3 else t for name, t in batch.items()}

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        """Cross entropy over a row's own choices."""
        scores = _of_row(logits.float(), labels[:, 1]).log_softmax(1)
        right = scores.gather(1, labels[:, :1]).squeeze(1)
        smooth = scores.masked_fill(scores == float("-inf"), 0).sum(1) / labels[:, 1]
        return -((1 - label_smoothing) * right + label_smoothing * smooth).sum()

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        return _of_row(logits, labels[:, 1]).argmax(1).cpu().numpy()

    def align_predictions(self, predictions: Predictions, split: Encoded) -> tuple[NDArray[Any], NDArray[Any]]:
        return np.asarray(predictions), np.asarray(split.labels)[:, 0]

    def scorer(self, metric: str, data: TaskData | None = None) -> Scorer:
        return load_metric(metric, _own_metric, DIRECTIONS)

    def predict(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[tuple[Any, ...]],
        max_length: int,
        batch_size: int = 64,
    ) -> list[dict[str, Any]]:
        """As `Task.predict`, for (question, choices) or (context, question, choices), choices as a list.

        Answers hold the choice's text (`label`), its probability among the choices (`score`) and its place, from 0.
        """
        import torch

        if any(isinstance(row, str) or isinstance(row[-1], str) or len(row[-1]) < 2 for row in rows):
            raise DataError("An input is (question, [choice, choice, …]), with two choices at least.")
        said = []
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            asked, choices = (
                [" ".join(row[:-1]) for row in part],
                _even([list(row[-1]) for row in part], max(len(row[-1]) for row in part)),
            )
            inputs = tokenizer(
                *_paired(asked, choices), truncation=True, max_length=max_length, padding=True, return_tensors="pt"
            )
            given = {name: t.view(len(part), len(choices[0]), -1).to(model.device) for name, t in inputs.items()}
            with torch.inference_mode():
                logits = model.eval()(**given).logits.float()
            scores = _of_row(logits, torch.tensor([_count(row) for row in choices], device=logits.device)).softmax(1)
            for text, row, score, place in zip(asked, choices, *(part.tolist() for part in scores.max(1)), strict=True):
                said.append({"label": row[place], "score": score, "choice": place, "text": text})
        return said

    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[tuple[Any, ...]]:
        check_exists(path)
        rows = read_file(path, encoding)
        trained = tuple(column for role, column in columns.items() if role != "label")
        there = all(name in rows.column_names for name in trained[:-1]) and _holding(rows, trained[-1])
        found = find_columns(rows, path.name, trained if there else None, "")
        return [(*row.asked, row.choices) for row in read_asked(rows, found, path.name)]

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        """What the choices alone give away: logistic regression on their words, the likeliest of a row taken."""
        from sklearn.linear_model import LogisticRegression

        def fit(columns: list[list[Any]], labels: Any) -> Any:
            given = [[choice for choice in row if choice] for row in columns[1]]
            features = fit_words([choice for row in given for choice in row])
            right = np.concatenate([np.arange(len(row)) == label for row, label in zip(given, labels, strict=True)])
            model = LogisticRegression(C=10, max_iter=1000)
            model.fit(features.transform([choice for row in given for choice in row]), right)

            def chosen(row: list[str]) -> int:
                scores = model.decision_function(features.transform([choice for choice in row if choice]))
                return int(scores.argmax())

            return lambda columns: np.array([chosen(row) for row in columns[1]])

        return measured("TF-IDF of the choices + logistic regression", fit, data, self.scorer(metric))


def find_columns(rows: Dataset, origin: str, text: str | tuple[str, ...] | None, label: str | None) -> Columns:
    """The named columns, else those recognised; with a `label` of "" none is looked for. Raises `DataError`."""
    known = ", ".join(rows.column_names)
    named = (text,) if isinstance(text, str) else text or ()
    asked = named[:-1] if len(named) > 1 else named
    for key, names in (("data.text", asked), ("data.label", (label,) if label else ())):
        for name in names:
            if name not in rows.column_names:
                raise missing_column(key, name, rows.column_names, origin)
    begins = [match[1] for name in rows.column_names if (match := NUMBERED.fullmatch(name))]
    candidates = named[-1:] if len(named) > 1 else (*columns_named(rows, LISTS), *begins)
    beginning = next((name for name in candidates if _holding(rows, name)), None)
    if beginning is None:
        raise DataError(
            f"{origin}: which columns hold the choices? Columns: {known}. Name two in `data.text`: the question, and a "
            "column of lists, or what the names of several columns (choice0, choice1, …) begin with."
        )
    choices = _holding(rows, beginning)
    label = next(iter(columns_named(rows, LABELS, choices)), None) if label is None else label
    if label is None:
        raise DataError(f"{origin}: which column tells the right choice? Columns: {known}. Name it in `data.label`.")
    others = [*choices, *filter(None, [label])]
    for names in (CONTEXTS, QUESTIONS) if not named else ():
        asked += tuple(columns_named(rows, names, others)[:1])
    asked = asked or find_text_columns(rows.remove_columns(others), origin, None)[:1]
    return Columns(asked, choices, beginning, label)


def _holding(rows: Dataset, beginning: str) -> tuple[str, ...]:
    """The columns of choices: the one of lists that is called so, or two and more whose names begin so."""
    if beginning in rows.column_names:
        kind = rows.data.table.schema.field(beginning).type
        if pa.types.is_struct(kind) and {field.name for field in kind} >= {"text", "label"}:
            kind = kind.field("text").type  # ARC's: {text: […], label: [A, B, …]}
        return (beginning,) if pa.types.is_list(kind) or pa.types.is_large_list(kind) else ()
    numbered = re.compile(re.escape(beginning) + NUMBER, re.IGNORECASE)
    found = sorted(name for name in rows.column_names if numbered.fullmatch(name))
    return tuple(found) if len(found) > 1 else ()


def read_asked(rows: Dataset, columns: Columns, origin: str) -> list[Asked]:
    """The questions with their choices. Raises `DataError` naming a row with an empty choice, or less than two."""
    texts = zip(*(read_texts(rows, name, origin) for name in columns.asked), strict=True)
    values: list[Any] = list(zip(*(column_values(rows, name) for name in columns.choices), strict=True))
    labels = column_values(rows, columns.label) if columns.label else [None] * len(rows)
    found = []
    for number, (asked, value, label) in enumerate(zip(texts, values, labels, strict=True), 1):
        given = value[0] if len(value) == 1 else value
        called = [str(name) for name in given["label"]] if isinstance(given, dict) else []
        choices = [str(choice or "") for choice in (given["text"] if isinstance(given, dict) else given or ())]
        while choices and not choices[-1].strip():  # of a row with fewer choices than there are columns
            choices.pop()
        if len(choices) < 2 or not all(choice.strip() for choice in choices):
            raise DataError(f"{origin}, row {number}: an empty choice, or less than two.")
        found.append(Asked(asked, choices, called, label))
    return found


def canonical(
    splits: Mapping[str, Dataset], columns: Columns, origins: Mapping[str, str], drop_empty: bool
) -> tuple[dict[str, Dataset], list[str]]:
    """Rows as `MultipleChoice` prepares them, and notes. Raises `DataError` naming the row whose label is no choice."""
    read = {split: read_asked(rows, columns, origins[split]) for split, rows in splits.items()}
    every = [row for rows in read.values() for row in rows]
    # Where no label is 0 and one is as large as there are choices, they count from 1.
    numbers = [row.number for row in every]
    first = int(all(numbers) and any(row.number == len(row.choices) for row in every))
    notes = [f"label: '{columns.label}' counts the choices from 1"] * first
    most = max(len(row.choices) for row in every)
    made = {}
    for split, rows in read.items():
        empty, said = find_empty([[row.text for row in rows]], origins[split], drop_empty)
        notes += said
        kept = [place for place in range(len(rows)) if place not in empty]
        for place in kept:
            if rows[place].right(first) is None:
                raise DataError(
                    f"{origins[split]}, row {place + 1}: '{columns.label}' is {rows[place].label!r}, which is none of "
                    f"its {len(rows[place].choices)} choices: write a choice's number, its letter, or its text."
                )
        held = [(rows[place].text, rows[place].choices, rows[place].right(first)) for place in kept]
        texts, choices, right = zip(*held, strict=True)
        columns_of = {"text": texts, "text_pair": _even(choices, most), "label": right}
        made[split] = Dataset.from_dict(columns_of | group_column(splits[split], kept))
    return made, notes


def _even(rows: Sequence[list[str]], most: int) -> list[list[str]]:
    """The rows' choices with empty ones after them, so that all have `most`."""
    return [[*row, *[""] * (most - len(row))] for row in rows]


def _count(choices: Sequence[str]) -> int:
    """How many choices there are without the empty ones."""
    return sum(choice != "" for choice in choices)


def _paired(asked: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """Each choice with what is asked before it; in place of an empty one the first is read, and does not count."""
    texts = [text for text, row in zip(asked, rows, strict=True) for _ in row]
    return texts, [choice or row[0] for row in rows for choice in row]


def _of_row(scores: "torch.Tensor", counts: "torch.Tensor") -> "torch.Tensor":
    """Scores [rows, choices] with -inf for those beyond a row's own."""
    import torch

    beyond = torch.arange(scores.shape[1], device=scores.device)[None] >= counts[:, None]
    return scores.masked_fill(beyond, float("-inf"))


def _own_metric() -> "evaluate.Metric":
    from hpo.tasks.metrics.classification import ClassificationMetrics

    class Accuracy(ClassificationMetrics):
        def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
            return {"accuracy": super()._compute(predictions, references)["accuracy"]}

    return Accuracy()
