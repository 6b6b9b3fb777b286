"""The data part of a task: from the user's files to validated splits with canonical columns, and encoded inputs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.data.columns import column_values, find_columns
from hpo.data.sources import load_splits
from hpo.data.splits.create import create_splits, text_keys
from hpo.data.splits.labeled import drop_unlabeled, labeled_splits
from hpo.data.splits.raw import RawSplits
from hpo.errors import DataError
from hpo.tasks.task_data import Examples, SourceColumns, TaskData, describe_classes, fingerprint, summarize


class Preparation(ABC):
    """Reads the user's data and encodes it.

    `prepare` is a template method: it calls `load`, `find_columns`, `read_examples`, `check_splits`, `strata`,
    `group_keys` and `hashed_rows`, of which a task implements `read_examples` and overrides what differs.
    """

    name: str
    """The task's name in a study file."""
    strata_name: str = "label"
    """Name in notes of the values that splits are stratified by."""
    input_key: str = "text"
    """The key under `data` in a study file that names the input columns."""
    label_noun: str = "labels"
    """Name of the labels in notes and errors."""
    blank_labels: Sequence[Any] = ()
    """Values of the label column that stand for no label; `data.drop_empty` drops their rows."""
    several_label_columns: bool = False
    """Whether `data.label` may name several columns."""
    encode_batch_size: int | None = None
    """The number of rows passed to `encode` at once, where its result is large; None: all rows."""

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        """Return whether `rows`, of which `config` may name columns, are likely meant for this task.

        `hpo init` picks the first task that matches. By default a task is used only where a study names it.
        """
        return False

    def prepare(self, config: DataConfig, seed: int) -> TaskData:
        """Load, validate and split the data. Deterministic for a given `seed`; does not import torch.

        Splits share no text (or file). Missing splits are sampled from train. Raises `DataError` for every mistake in
        the data, naming the file and row.
        """
        self.check_config(config)
        raw = self.load(config, seed)
        columns = self.find_columns(raw.train, raw.origins["train"], config)
        labeled, unlabeled = labeled_splits(raw, columns.inputs, columns.label, self.input_key, self.label_noun)
        origins = dict(raw.origins)
        if config.drop_empty and self.blank_labels and columns.label is not None:
            for split, rows in labeled.items():
                labeled[split], dropped = drop_unlabeled(rows, columns.label, self.blank_labels, origins[split])
                unlabeled += dropped
                origins[split] += " (without its rows that have no label)" if dropped else ""
        examples = self.read_examples(labeled, columns, origins, config)
        names, origins = examples.label_names, {split: origins[split] for split in examples.splits}
        self.check_splits(examples.splits, names, origins)
        splits, created = create_splits(examples.splits, config, seed, self.strata, self.group_keys, self.strata_name)
        warnings = self.check_splits(splits, names, origins)
        data = TaskData(
            train=splits["train"],
            validation=splits["validation"],
            test=splits.get("test"),
            label_names=names,
            columns=columns.roles,
            notes=(*columns.notes, *raw.notes, *unlabeled, *examples.notes, *created, *warnings),
            fingerprint=fingerprint(self.name, {s: self.hashed_rows(rows) for s, rows in splits.items()}, names),
        )
        others = (*columns.others, *([config.group] if config.group else []))
        read = replace(columns, others=others)
        return replace(data, summary=summarize(self.name, read, raw.present(), data.sizes, self.describe(data)))

    def check_config(self, config: DataConfig) -> None:
        """Raise `DataError` where `config` names columns that this task cannot read, before anything is loaded."""
        if isinstance(config.label, tuple) and not self.several_label_columns:
            raise DataError(f"data.label: {self.name} reads one column of {self.label_noun}, not {len(config.label)}.")

    def load(self, config: DataConfig, seed: int) -> RawSplits:
        """Open the splits with their source columns. Raises `DataError` where a file cannot be read."""
        return load_splits(config, seed)

    def find_columns(self, rows: Dataset, origin: str, config: DataConfig) -> SourceColumns:
        """Return the columns of train (`rows`, read from `origin`) to use: those named in `config`, else recognized.

        By default one or two columns of text and one label column. Raises `DataError` listing the columns.
        """
        assert not isinstance(config.label, tuple)
        return SourceColumns.from_columns(find_columns(rows, origin, config.text, config.label))

    @abstractmethod
    def read_examples(
        self, splits: Mapping[str, Dataset], columns: SourceColumns, origins: Mapping[str, str], config: DataConfig
    ) -> Examples:
        """Convert each split's source rows to canonical columns.

        Columns that hpo knows: `text` and `text_pair` (strings; duplicates are dropped by them), or `digest` (a
        string) for files; and `label`. Where a split has a column `hpo.data.columns.GROUP`, it must be kept
        (`group_column`). `origins` names the source of each split. Raises `DataError` naming the source and row of an
        invalid text or label.
        """
        ...

    def relabel(self, rows: Dataset, names: Sequence[str], trained: Sequence[str]) -> Dataset:
        """Return `rows`, whose labels are indices into `names`, with the indices of the same classes in `trained`.

        By default for a class, or a list of them, per row. `names` are all in `trained`.
        """
        index = [trained.index(name) for name in names]
        labels = column_values(rows, "label")
        changed = [index[label] if isinstance(label, int) else [index[one] for one in label] for label in labels]
        return rows.remove_columns("label").add_column("label", changed)

    def check_splits(
        self, splits: Mapping[str, Dataset], label_names: Sequence[str], origins: Mapping[str, str]
    ) -> list[str]:
        """Raise `DataError` where nothing can be learned from a split or measured on it; return notes on the rest.

        Called twice: with the splits that exist before the missing ones are created, and with the final ones. Only
        the notes of the second call are kept. `origins` lacks the splits that were created.
        """
        return []

    def strata(self, rows: Dataset) -> Sequence[int]:
        """Return a number per row, such as its class: created splits and subsets hold the same fraction of each."""
        return [0] * len(rows)

    def group_keys(self, rows: Dataset) -> Sequence[str]:
        """Return a key per row: rows with equal keys stay in one split. By default the normalized text."""
        return text_keys(rows)

    def hashed_rows(self, rows: Dataset) -> Dataset:
        """Return the columns of `rows` that the data's fingerprint covers: those that can be written as JSON."""
        return rows

    def describe(self, data: TaskData) -> str:
        """Describe the labels in a few words, such as `2 classes: no, yes`."""
        return describe_classes(data.label_names) if data.label_names else f"{len(data.train)} training rows"

    @abstractmethod
    def encode(self, rows: Dataset, processor: Any, max_length: int) -> Dataset:
        """Encode prepared rows as model inputs, truncated to `max_length` (tokens or samples) or split, unpadded.

        Returns one row per input, with the columns:
        - the model's inputs: `input_ids`, `token_type_ids` as lists of int32; pixels as nested fixed-size lists;
          audio as lists of 16-bit floats;
        - `length`: the cost of an input in tokens, int32. Batches are made of inputs of similar length;
        - `labels`, where `rows` has them: a number, a vector (Arrow's fixed-size list), or a list with several
          numbers, such as one per token; -100 where a token has none;
        - columns whose name starts with `_` are not passed to the model: `align_predictions` reads them.

        `processor` is what `adapt_processor` returned. Raises `DataError`.
        """
        ...
