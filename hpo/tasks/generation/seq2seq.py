"""A text → another text, written by a model with an encoder and a decoder: what such tasks share."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig, Generation, StudyConfig
from hpo.core.direction import Direction
from hpo.data.checks import read_texts
from hpo.data.columns import column_values, missing_column
from hpo.data.labels.targets import find_target_columns, flatten_translations, load_flattened, read_pairs
from hpo.data.readers import decode as read_lines
from hpo.data.readers import read_file
from hpo.data.splits.create import create_splits
from hpo.data.splits.labeled import labeled_splits
from hpo.errors import DataError
from hpo.tasks.base import Predictions, Task
from hpo.tasks.generation.generate import decode, end_of_text, generate, set_generation, token_loss, write_texts
from hpo.tasks.metrics.scorer import Scorer, load_metric, one_each
from hpo.tasks.task_data import Encoded, TaskData, fingerprint
from hpo.tasks.text.base import check_exists, ragged_table

if TYPE_CHECKING:
    import evaluate
    import torch

Names = Sequence[tuple[Sequence[str], Sequence[str]]]

SAMPLE = (["a cat"], [("the cat",)])
USAGE = """\
model = AutoModelForSeq2SeqLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
prefix = tokenizer.init_kwargs.get("source_prefix", "")
inputs = tokenizer(prefix + "a text", return_tensors="pt")
tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True)"""


class Seq2Seq(Task):
    """A text → another text. See `Task` for what each method promises.

    The loss is the cross entropy of the target's tokens, each given those before it. Predictions are texts that the
    model generates: greedily, for a part of the validation rows, at a rung; with beams, for all rows, on test.
    """

    auto_class = "AutoModelForSeq2SeqLM"
    search_space = "seq2seq"
    usage = USAGE
    limitations = "It writes something for any text; what it writes may be wrong, also where it reads well."
    directions: Mapping[str, Direction]
    pairs: Names
    """Names of the columns that are read and written."""

    def __init__(self, generation: Generation | None = None) -> None:
        self.generation: Generation = generation or Generation()

    def configure(self, config: StudyConfig) -> "Seq2Seq":
        return type(self)(config.generation)

    @abstractmethod
    def build_metric(self) -> "Callable[[], evaluate.Metric]":
        """What makes the task's metric."""
        ...

    def prepare(self, config: DataConfig, seed: int) -> TaskData:
        raw = load_flattened(config, seed)
        columns = find_target_columns(raw.train, raw.origins["train"], config, self.pairs)
        splits, unlabelled = labeled_splits(raw, columns.text, columns.label, what="targets")
        given, said = read_pairs(splits, columns, raw.origins, config.drop_empty)
        whole, made = create_splits(given, config, seed, self.strata)
        rows, most = len(whole["validation"]), self.generation.rows
        if rows > most:
            made = [*made, f"at rungs, texts are written for {most} of the {rows} validation rows, always the same"]
        return TaskData(
            whole["train"],
            whole["validation"],
            whole.get("test"),
            (),
            columns.by_role(),
            (*columns.notes, *raw.notes, *unlabelled, *said, *made),
            fingerprint(self.name, whole, ()),
        )

    def describe(self, data: TaskData) -> str:
        read, written = (
            float(np.mean([len(text.split()) for text in texts]))
            for texts in (column_values(data.train, "text"), [right[0] for right in column_values(data.train, "label")])
        )
        return f"Texts of {read:.0f} words, of which {written:.0f} are made"

    def head_config(self, data: TaskData) -> dict[str, Any]:
        return {}

    def check_model(self, model: Any, tokenizer: Any) -> str:
        if end_of_text(tokenizer) is None:
            return "its tokenizer has no token that ends a text, so that it would never stop writing"
        most, positions = self.generation.max_target_length, getattr(model.config, "max_position_embeddings", None)
        if most is not None and positions is not None and most > positions:
            return f"generation.max_target_length: {most} is more than its {positions} positions"
        return ""

    def encode(self, rows: Dataset, tokenizer: Any, max_length: int) -> Dataset:
        """As `Task.encode`; the labels are the tokens of the first text that is right, and the one that ends it."""
        prefix, texts = tokenizer.init_kwargs.get("source_prefix", ""), column_values(rows, "text")
        targets = [right[0] for right in column_values(rows, "label")] if "label" in rows.column_names else None
        longest = self.generation.max_target_length or max_length
        tables = []
        for start in range(0, len(rows), 1000):
            part = slice(start, start + 1000)
            read = tokenizer([prefix + text for text in texts[part]], truncation=True, max_length=max_length)
            table = ragged_table({"input_ids": read["input_ids"]})
            if targets is not None:
                written = tokenizer(text_target=targets[part], truncation=True, max_length=longest)["input_ids"]
                labels = ragged_table({"labels": [_ended(ids, tokenizer, longest) for ids in written]})
                table = table.append_column("labels", labels.column("labels"))
            tables.append(table)
        return Dataset(pa.concat_tables(tables))

    def configure_model(self, model: Any, train: Encoded) -> None:
        lengths = np.diff(train.columns["labels"][1])
        set_generation(model, train.processor, lengths, self.generation.num_beams)

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
        return token_loss(logits, labels, label_smoothing)

    def target_count(self, labels: Any) -> int:
        return int((labels != -100).sum())

    def reduce_logits(self, logits: "torch.Tensor", labels: "torch.Tensor") -> Predictions:
        return [None] * len(labels)  # they are written

    def generate(self, model: Any, inputs: "Mapping[str, torch.Tensor]", greedy: bool) -> Predictions:
        return list(generate(model, inputs, **({"num_beams": 1} if greedy else {})))

    def align_predictions(self, predictions: Predictions, split: Encoded) -> tuple[NDArray[Any], NDArray[Any]]:
        right = [tuple(texts) for texts in column_values(split.rows, "label")]
        return one_each(decode(split.processor, predictions)), one_each(right)

    def scorer(self, metric: str, data: TaskData | None = None) -> Scorer:
        return load_metric(metric, self.build_metric(), self.directions, {}, list, SAMPLE)

    def finalize_model(self, model: Any, data: TaskData) -> None:
        model.config.use_cache = True  # off while it was trained

    def predict(
        self, model: Any, tokenizer: Any, rows: Sequence[str], max_length: int, batch_size: int = 64
    ) -> list[dict[str, Any]]:
        """As `Task.predict`, for texts: what is written of each (`label`)."""
        if any(not isinstance(row, str) for row in rows):
            raise DataError("An input is a text.")
        if not rows:
            return []
        encoded = self.encode(Dataset.from_dict({"text": list(rows)}), tokenizer, max_length)
        written = write_texts(model, tokenizer, column_values(encoded, "input_ids"), batch_size, "right")
        return [{"label": text, "text": row} for text, row in zip(written, rows, strict=True)]

    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[str]:
        check_exists(path)
        if path.suffix.lower() == ".txt":
            return [line for line in read_lines(path, encoding).splitlines() if line.strip()]
        rows = flatten_translations(read_file(path, encoding))
        wanted, known = columns["text"], {name.lower(): name for name in rows.column_names}
        names = (wanted.lower(), *(name for texts, _ in self.pairs for name in texts))
        found = wanted if wanted in rows.column_names else next((known[name] for name in names if name in known), None)
        if found is None:
            raise missing_column(str(path), wanted, rows.column_names, "the file")
        return read_texts(rows, found, path.name)


def _ended(tokens: list[int], tokenizer: Any, longest: int) -> list[int]:
    """Tokens of a text with the one that ends it."""
    end = end_of_text(tokenizer)
    return tokens if end is None or (tokens and tokens[-1] == end) else [*tokens[: longest - 1], end]
