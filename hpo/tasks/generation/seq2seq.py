"""Sequence-to-sequence tasks: a text → another text, written by an encoder-decoder model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig, Generation, StudyConfig
from hpo.data.checks import read_texts
from hpo.data.columns import Columns, column_values, missing_column
from hpo.data.formats.detect import read_file
from hpo.data.labels.targets import find_target_columns, flatten_translations, load_flattened, read_pairs
from hpo.data.splits.raw import RawSplits
from hpo.errors import DataError
from hpo.tasks.base import Task
from hpo.tasks.generation.generate import decode, end_of_text, generate, set_generation, token_loss, write_texts
from hpo.tasks.metrics.scorer import object_array
from hpo.tasks.objective import Predictions
from hpo.tasks.task_data import Encoded, Examples, SourceColumns, TaskData
from hpo.tasks.text.base import check_exists, ragged_table, read_lines

if TYPE_CHECKING:
    import torch

Names = Sequence[tuple[Sequence[str], Sequence[str]]]

USAGE = """\
model = AutoModelForSeq2SeqLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
prefix = tokenizer.init_kwargs.get("source_prefix", "")
inputs = tokenizer(prefix + "a text", truncation=True, max_length={max_length}, return_tensors="pt")
tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True)"""


class Seq2Seq(Task):
    """A text → another text.

    The loss is the cross entropy of the target's tokens, each given the previous ones. Predictions are generated
    texts: greedily, for a part of the validation rows, at a rung; with beam search, for all rows, on test.
    """

    auto_class = "AutoModelForSeq2SeqLM"
    search_space = "seq2seq"
    label_noun = "targets"
    metric_sample = (["a cat"], [("the cat",)])
    usage = USAGE
    limitations = "It writes something for any text; what it writes may be wrong, also where it reads well."
    pairs: Names
    """Names of source and target columns that belong together, the most common first."""

    def __init__(self, generation: Generation | None = None) -> None:
        self.generation: Generation = generation or Generation()

    def configure(self, config: StudyConfig) -> Self:
        return type(self)(config.generation)

    def load(self, config: DataConfig, seed: int) -> RawSplits:
        return load_flattened(config, seed)

    def find_columns(self, rows: Dataset, origin: str, config: DataConfig) -> SourceColumns:
        return SourceColumns.from_columns(find_target_columns(rows, origin, config, self.pairs))

    def read_examples(
        self, splits: Mapping[str, Dataset], columns: SourceColumns, origins: Mapping[str, str], config: DataConfig
    ) -> Examples:
        found = Columns(columns.inputs, columns.roles["label"])
        rows, notes = read_pairs(splits, found, origins, config.drop_empty)
        return Examples(rows, (), tuple(notes))

    def check_splits(
        self, splits: Mapping[str, Dataset], label_names: Sequence[str], origins: Mapping[str, str]
    ) -> list[str]:
        rows, most = len(splits.get("validation", ())), self.generation.rows
        if rows <= most:
            return []
        return [f"at rungs, texts are generated for {most} of the {rows} validation rows, always the same"]

    def describe(self, data: TaskData) -> str:
        targets = [texts[0] for texts in column_values(data.train, "label")]
        read, written = (
            float(np.mean([len(text.split()) for text in texts]))
            for texts in (column_values(data.train, "text"), targets)
        )
        return f"Texts of {read:.0f} words → texts of {written:.0f} words"

    def check_model(self, model: Any, tokenizer: Any) -> str:
        if end_of_text(tokenizer) is None:
            return "its tokenizer has no end-of-text token, so that generation would never stop"
        most, positions = self.generation.max_target_length, getattr(model.config, "max_position_embeddings", None)
        if most is not None and positions is not None and most > positions:
            return f"generation.max_target_length: {most} is more than its {positions} positions"
        return ""

    def encode(self, rows: Dataset, tokenizer: Any, max_length: int) -> Dataset:
        """Encode as `Task.encode`; labels are the tokens of the first reference text, with the end-of-text token."""
        prefix, texts = tokenizer.init_kwargs.get("source_prefix", ""), column_values(rows, "text")
        targets = (
            [references[0] for references in column_values(rows, "label")] if "label" in rows.column_names else None
        )
        longest = self.generation.max_target_length or max_length
        tables = []
        for start in range(0, len(rows), 1000):
            part = slice(start, start + 1000)
            inputs = tokenizer([prefix + text for text in texts[part]], truncation=True, max_length=max_length)
            table = ragged_table({"input_ids": inputs["input_ids"]})
            if targets is not None:
                ids = tokenizer(text_target=targets[part], truncation=True, max_length=longest)["input_ids"]
                labels = ragged_table({"labels": [_with_end(tokens, tokenizer, longest) for tokens in ids]})
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
        return [None] * len(labels)  # they are generated

    def generate(self, model: Any, inputs: "Mapping[str, torch.Tensor]", greedy: bool) -> Predictions:
        return list(generate(model, inputs, **({"num_beams": 1} if greedy else {})))

    def align_predictions(self, predictions: Predictions, split: Encoded) -> tuple[NDArray[Any], NDArray[Any]]:
        references = [tuple(texts) for texts in column_values(split.rows, "label")]
        return object_array(decode(split.processor, predictions)), object_array(references)

    def metric_inputs(self, values: NDArray[Any], data: TaskData | None) -> list[Any]:
        return list(values)

    def finalize_model(self, model: Any, data: TaskData) -> None:
        model.config.use_cache = True  # off during training

    def predict(
        self, model: Any, tokenizer: Any, rows: Sequence[str], max_length: int, batch_size: int = 64
    ) -> list[dict[str, Any]]:
        """Predict the text generated for each text (`label`), and return the text itself (`text`)."""
        if any(not isinstance(row, str) for row in rows):
            raise DataError("An input is a text.")
        if not rows:
            return []
        encoded = self.encode(Dataset.from_dict({"text": list(rows)}), tokenizer, max_length)
        generated = write_texts(model, tokenizer, column_values(encoded, "input_ids"), batch_size, "right")
        return [{"label": text, "text": row} for text, row in zip(generated, rows, strict=True)]

    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[str]:
        check_exists(path)
        if path.suffix.lower() == ".txt":
            return read_lines(path, encoding)
        rows = flatten_translations(read_file(path, encoding))
        wanted, known = columns["text"], {name.lower(): name for name in rows.column_names}
        names = (wanted.lower(), *(name for texts, _ in self.pairs for name in texts))
        found = wanted if wanted in rows.column_names else next((known[name] for name in names if name in known), None)
        if found is None:
            raise missing_column(str(path), wanted, rows.column_names, "the file")
        return read_texts(rows, found, path.name)


def _with_end(tokens: list[int], tokenizer: Any, longest: int) -> list[int]:
    """Return tokens with the end-of-text token, at most `longest`."""
    end = end_of_text(tokenizer)
    return tokens if end is None or (tokens and tokens[-1] == end) else [*tokens[: longest - 1], end]
