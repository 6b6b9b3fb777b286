"""What the tasks on one or two texts share: reading them, encoding them, predicting for them."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.core.format import count
from hpo.data.checks import find_empty, read_texts
from hpo.data.columns import Columns, column_values, find_columns, find_text_columns, group_column, missing_column
from hpo.data.readers import decode, read_file
from hpo.data.sources import RawSplits, load_splits
from hpo.data.splits.create import TEXT_ROLES, create_splits, take
from hpo.data.splits.labeled import labeled_splits
from hpo.errors import DataError, did_you_mean
from hpo.tasks.base import Task, TextInput, logits_of
from hpo.tasks.task_data import Labels, TaskData, fingerprint

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class TextTask(Task):
    """One or two texts → a label of some kind, by a sequence-classification head."""

    auto_class = "AutoModelForSequenceClassification"
    pipeline_tag = "text-classification"
    usage = 'classify = pipeline("text-classification", model="path/to/this/folder")\nclassify("a text")'

    def load(self, config: DataConfig, seed: int) -> tuple[RawSplits, Columns]:
        """The splits with their own columns, and which of them are the texts and the label."""
        raw = load_splits(config, seed)
        assert not isinstance(config.label, tuple)
        return raw, find_columns(raw.train, raw.origins["train"], config.text, config.label)

    @abstractmethod
    def read_labels(
        self, splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str], config: DataConfig
    ) -> Labels:
        """The labels in `column`. Raises `DataError` naming the file and rows of those that are none."""
        ...

    @abstractmethod
    def check_labels(
        self, splits: Mapping[str, Dataset], names: Sequence[str], origins: Mapping[str, str]
    ) -> list[str]:
        """Refuse what nothing can be learnt from or judged by; returns notes on what is only doubtful."""
        ...

    def prepare(self, config: DataConfig, seed: int) -> TaskData:
        if isinstance(config.label, tuple) and type(self).load is TextTask.load:
            raise DataError(f"data.label: {self.name} reads one column; these are {len(config.label)}.")
        raw, columns = self.load(config, seed)
        labelled, unlabelled = labeled_splits(raw, columns.text, columns.label)
        given, labels, changed = self._canonical(labelled, columns, raw.origins, config)
        origins = {split: raw.origins[split] for split in given}
        self.check_labels(given, labels.names, origins)
        splits, made = create_splits(given, config, seed, self.strata)
        doubtful = self.check_labels(splits, labels.names, origins)
        return TaskData(
            splits["train"],
            splits["validation"],
            splits.get("test"),
            labels.names,
            columns.by_role(),
            (*columns.notes, *raw.notes, *unlabelled, *changed, *made, *doubtful),
            fingerprint(self.name, splits, labels.names),
        )

    def _canonical(
        self, raw: Mapping[str, Dataset], columns: Columns, origins: Mapping[str, str], config: DataConfig
    ) -> tuple[dict[str, Dataset], Labels, list[str]]:
        """Rows as text (and text_pair) and label, what the labels are, and notes."""
        splits, where, notes = dict(raw), dict(origins), []
        texts: dict[str, list[list[str]]] = {}
        for split, rows in raw.items():
            texts[split] = [read_texts(rows, name, origins[split]) for name in columns.text]
            empty, said = find_empty(texts[split], origins[split], config.drop_empty)
            notes += said
            if empty:
                kept = [place for place in range(len(rows)) if place not in empty]
                if not kept:
                    raise DataError(f"{origins[split]}: the text of every row is empty.")
                splits[split] = take(rows, kept)
                where[split] += f" (without its {count(len(empty), 'empty row')})"
                texts[split] = [[column[place] for place in kept] for column in texts[split]]
        labels = self.read_labels(splits, columns.label, where, config)
        canonical = {
            split: Dataset.from_dict(
                {**dict(zip(TEXT_ROLES, texts[split], strict=False)), "label": labels.values[split]}
                | group_column(splits[split])
            )
            for split in splits
        }
        return canonical, labels, [*notes, *labels.notes]

    def encode_labels(self, rows: Dataset) -> pa.Array:
        """The label column of prepared rows as `encode` hands it on."""
        return pa.array(column_values(rows, "label"), pa.int64())

    def encode(self, rows: Dataset, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Dataset:
        texts = [column_values(rows, role) for role in TEXT_ROLES if role in rows.column_names]
        batches = [
            _encode_batch([column[start : start + 1000] for column in texts], tokenizer, max_length)
            for start in range(0, len(rows), 1000)
        ]
        table = pa.concat_tables(batches)
        if "label" in rows.column_names:
            table = table.append_column("labels", self.encode_labels(rows))
        return Dataset(table)

    @abstractmethod
    def postprocess(self, logits: "torch.Tensor", config: Any, processor: Any) -> list[dict[str, Any]]:
        """What is said of each input, by the logits of a final model with `config`."""
        ...

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
        said: list[dict[str, Any]] = [{} for _ in rows]
        for places, logits in run_model(model, tokenizer, encoded, batch_size):
            for place, answer in zip(places, self.postprocess(logits, model.config, tokenizer), strict=True):
                said[place] = {**answer, **dict(zip(TEXT_ROLES, pairs[place], strict=False))}
        return said

    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[TextInput]:
        trained = [columns[role] for role in TEXT_ROLES if role in columns]
        check_exists(path)
        if path.suffix.lower() == ".txt":
            if len(trained) > 1:
                raise DataError(
                    f"{path}: the model reads pairs of texts: give a csv or jsonl file with the columns "
                    f"{' and '.join(trained)}."
                )
            return [line for line in decode(path, encoding).splitlines() if line.strip()]
        rows = read_file(path, encoding)
        missing = next((name for name in trained if name not in rows.column_names), None)
        if missing is not None:
            unlike = missing_column(str(path), missing, rows.column_names, "the file")
            try:
                trained = list(find_text_columns(rows, path.name, None, besides=columns.get("label")))
            except DataError:
                raise unlike from None
            if len(trained) != len([role for role in TEXT_ROLES if role in columns]):
                raise unlike
        texts = [read_texts(rows, name, path.name) for name in trained]
        return list(texts[0]) if len(texts) == 1 else list(zip(texts[0], texts[1], strict=True))


def check_exists(path: Path) -> None:
    """Raise `DataError` where a file to predict for is not there, naming the nearest one."""
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.absolute().parent.glob("*")])
        raise DataError(f"There is no file {path.absolute()}.{near}")


def run_model(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", encoded: Dataset, batch_size: int
) -> "list[tuple[list[int], torch.Tensor]]":
    """The logits of every encoded row, in batches with the rows' numbers; those of a span head are stacked last."""
    import torch
    from transformers import DataCollatorWithPadding

    given = [name for name in encoded.column_names if name not in ("length", "labels") and not name.startswith("_")]
    rows = encoded.select_columns(given).to_list()
    # Longest first: batches of like lengths hold little padding, and too large a batch shows at once.
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place]["input_ids"]))
    # Without a padding token only single rows can be read (a causal model that hpo did not train).
    size = batch_size if tokenizer.pad_token_id is not None else 1
    collate = DataCollatorWithPadding(tokenizer, padding=size > 1)
    found = []
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), size):
            places = order[start : start + size]
            batch = {key: value.to(model.device) for key, value in collate([rows[p] for p in places]).items()}
            found.append((places, logits_of(model(**batch)).float()))
    return found


def _encode_batch(texts: list[list[str]], tokenizer: "PreTrainedTokenizerBase", max_length: int) -> pa.Table:
    """Token ids of up to 1,000 rows as Arrow lists, made from one flat array: half a million lists cost seconds."""
    encoded = tokenizer(*texts, truncation=True, max_length=max_length, return_attention_mask=False)
    return ragged_table({name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded})


def ragged_table(columns: Mapping[str, Sequence[Sequence[int]]]) -> pa.Table:
    """Columns with one number a token as Arrow lists of int32, and `length`, the number of tokens."""
    first = next(iter(columns.values()))
    lengths = np.fromiter(map(len, first), np.int32, count=len(first))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    made = {}
    for name, rows in columns.items():
        flat = np.fromiter((token for row in rows for token in row), np.int32, count=int(lengths.sum()))
        made[name] = pa.ListArray.from_arrays(offsets, pa.array(flat))
    return pa.table({**made, "length": pa.array(lengths)})
