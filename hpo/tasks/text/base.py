"""Tasks on one or two texts: reading, encoding and prediction."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.core.format import count
from hpo.data.checks import blank_rows, read_texts, report_empty, text_column
from hpo.data.columns import as_rows, column_values, find_text_columns, group_column, missing_column
from hpo.data.formats.detect import read_file
from hpo.data.formats.source import decode
from hpo.data.splits.create import TEXT_ROLES, take
from hpo.errors import DataError, did_you_mean
from hpo.tasks.base import Task
from hpo.tasks.inference import run_encoded
from hpo.tasks.task_data import Examples, Labels, SourceColumns

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Of tasks on one or two texts; a pipeline alone does not truncate.
PIPELINE = """\
{name} = pipeline(
    "text-classification", model="path/to/this/folder", truncation=True, max_length={{max_length}}{options}
)
{name}("a text")"""

TextInput = str | tuple[str, str]


class TextTask(Task):
    """One or two texts → a label, by a sequence-classification head.

    Canonical columns are `text`, `text_pair` where there are two, and `label`.
    """

    auto_class = "AutoModelForSequenceClassification"
    pipeline_tag = "text-classification"
    usage = PIPELINE.format(name="classify", options="")

    @abstractmethod
    def read_labels(
        self, splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str], config: DataConfig
    ) -> Labels:
        """Read the labels in `column` of source rows, as class numbers or what `encode_labels` takes.

        Raises `DataError` naming the source and rows of invalid labels.
        """
        ...

    @abstractmethod
    def postprocess(self, logits: "torch.Tensor", config: Any, processor: Any) -> list[dict[str, Any]]:
        """Return one prediction per input, such as `label` and `score`, given the logits [inputs, …] in float32.

        `config` is the final model's, with its `id2label`.
        """
        ...

    def encode_labels(self, rows: Dataset, processor: Any) -> pa.Array:
        """Return the labels of prepared rows as the column `labels` that `encode` returns."""
        return pa.array(column_values(rows, "label"), pa.int64())

    def read_examples(
        self, splits: Mapping[str, Dataset], columns: SourceColumns, origins: Mapping[str, str], config: DataConfig
    ) -> Examples:
        kept, where, notes = dict(splits), dict(origins), []
        texts: dict[str, list[pa.ChunkedArray]] = {}
        for split, rows in splits.items():
            texts[split] = [text_column(rows, name, origins[split]) for name in columns.inputs]
            empty, dropped = report_empty(blank_rows(texts[split]), len(rows), origins[split], config.drop_empty)
            notes += dropped
            if empty:
                indices = [index for index in range(len(rows)) if index not in empty]
                if not indices:
                    raise DataError(f"{origins[split]}: the text of every row is empty.")
                kept[split] = take(rows, indices)
                where[split] += f" (without its {count(len(empty), 'empty row')})"
                texts[split] = [column.take(pa.array(indices)) for column in texts[split]]
        assert columns.label is not None
        labels = self.read_labels(kept, columns.label, where, config)
        canonical = {
            split: as_rows(
                pa.table(
                    {**dict(zip(TEXT_ROLES, texts[split], strict=False)), "label": pa.array(labels.values[split])}
                    | {name: pa.array(values) for name, values in group_column(rows).items()}
                )
            )
            for split, rows in kept.items()
        }
        return Examples(canonical, labels.names, (*notes, *labels.notes))

    def encode(self, rows: Dataset, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Dataset:
        texts = [column_values(rows, role) for role in TEXT_ROLES if role in rows.column_names]
        batches = [
            _encode_batch([column[start : start + 1000] for column in texts], tokenizer, max_length)
            for start in range(0, len(rows), 1000)
        ]
        table = pa.concat_tables(batches)
        if "label" in rows.column_names:
            table = table.append_column("labels", self.encode_labels(rows, tokenizer))
        return Dataset(table)

    def predict(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[TextInput],
        max_length: int,
        batch_size: int = 64,
    ) -> list[dict[str, Any]]:
        if not rows:
            return []
        pairs = [(row,) if isinstance(row, str) else tuple(row) for row in rows]
        columns = dict(zip(TEXT_ROLES, map(list, zip(*pairs, strict=True)), strict=False))
        encoded = self.encode(Dataset.from_dict(columns), tokenizer, max_length)

        def reduce(logits: "torch.Tensor", indices: list[int]) -> list[dict[str, Any]]:
            return self.postprocess(logits, model.config, tokenizer)

        predictions = run_encoded(self, model, tokenizer, encoded, reduce, batch_size)
        return [
            {**prediction, **dict(zip(TEXT_ROLES, pair, strict=False))}
            for prediction, pair in zip(predictions, pairs, strict=True)
        ]

    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[TextInput]:
        trained = [columns[role] for role in TEXT_ROLES if role in columns]
        check_exists(path)
        if path.suffix.lower() == ".txt":
            if len(trained) > 1:
                raise DataError(
                    f"{path}: the model reads pairs of texts: give a csv or jsonl file with the columns "
                    f"{' and '.join(trained)}."
                )
            return list(read_lines(path, encoding))
        rows = read_file(path, encoding)
        found = _recognized(rows, trained, columns, path)
        texts = [read_texts(rows, name, path.name) for name in found]
        return list(texts[0]) if len(texts) == 1 else list(zip(texts[0], texts[1], strict=True))


def _recognized(rows: Dataset, trained: Sequence[str], columns: Mapping[str, str], path: Path) -> Sequence[str]:
    """Return the columns of text that the model was `trained` on; where one is missing, those recognized instead."""
    missing = next((name for name in trained if name not in rows.column_names), None)
    if missing is None:
        return trained
    error = missing_column(str(path), missing, rows.column_names, "the file")
    try:
        found = find_text_columns(rows, path.name, None, besides=columns.get("label"))
    except DataError:
        raise error from None
    if len(found) != len(trained):
        raise error
    return found


def check_exists(path: Path) -> None:
    """Raise `DataError`, naming the most similar file, where a file to predict for does not exist."""
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.absolute().parent.glob("*")])
        raise DataError(f"There is no file {path.absolute()}.{near}")


def read_lines(path: Path, encoding: str) -> list[str]:
    """Return the lines of a text file that are not blank."""
    return [line for line in decode(path, encoding).splitlines() if line.strip()]


def _encode_batch(texts: list[list[str]], tokenizer: "PreTrainedTokenizerBase", max_length: int) -> pa.Table:
    """Return token ids of up to 1,000 rows as Arrow lists over one flat array: half a million lists take seconds."""
    encoded = tokenizer(*texts, truncation=True, max_length=max_length, return_attention_mask=False)
    return ragged_table({name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded})


def ragged_table(columns: Mapping[str, Sequence[Sequence[int]]]) -> pa.Table:
    """Return columns with one number per token as Arrow lists of int32, and `length`, the number of tokens."""
    first = next(iter(columns.values()))
    lengths = np.fromiter(map(len, first), np.int32, count=len(first))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    lists = {}
    for name, rows in columns.items():
        flat = np.fromiter((token for row in rows for token in row), np.int32, count=int(lengths.sum()))
        lists[name] = pa.ListArray.from_arrays(offsets, pa.array(flat))
    return pa.table({**lists, "length": pa.array(lengths)})
