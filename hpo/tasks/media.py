"""Tasks on image and audio files: finding the files, encoding their content, and prediction."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hpo.config.study import DataConfig
from hpo.data.columns import LABELS, column_values, columns_named, group_column, missing_column
from hpo.data.formats.detect import read_file
from hpo.data.formats.source import decode
from hpo.data.formats.split_names import SPLITS
from hpo.data.media.class_folders import media_files
from hpo.data.media.files import (
    EXTENSIONS,
    Item,
    as_item,
    check_files,
    find_media_column,
    item_array,
    locate,
    media_values,
    read_items,
)
from hpo.data.media.locate import resolve_media
from hpo.errors import DataError, enumerated
from hpo.tasks.base import Task
from hpo.tasks.inference import pad_batch, run_inference
from hpo.tasks.objective import Batch
from hpo.tasks.task_data import Examples, Labels, SourceColumns

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

BOXES = ("xmin", "ymin", "xmax", "ymax", "x_min", "y_min", "x_max", "y_max", "x1", "y1", "x2", "y2")


class MediaTask(Task):
    """An image or audio file → a label.

    Canonical columns are the file (`image` or `audio`), its `digest`, by which duplicates are dropped, and `label`.
    """

    kind: str
    """`image` or `audio`: the column of prepared rows. Equals `input_key`."""
    label_columns: tuple[str, ...] = LABELS
    """Names by which the label column is recognized, in order of preference."""

    @abstractmethod
    def measure(self, item: Item) -> float:
        """Decode a file and return its seconds, or 1 for an image of one color, else 0.

        May raise any error of its decoder.
        """
        ...

    def describe_files(self, measures: Sequence[float], origin: str) -> list[str]:
        """Return notes on a split's files, given their `measure`."""
        return []

    @abstractmethod
    def extract_features(
        self, items: Sequence[Item], processor: Any, max_length: int
    ) -> tuple[str, list[NDArray[Any]]]:
        """Return the name of the model's input, and an array per file as it is cached: bytes, or 16-bit floats."""
        ...

    @abstractmethod
    def compute_costs(self, features: Sequence[NDArray[Any]], processor: Any) -> list[int]:
        """Return the cost of each array for the model, in tokens of a text."""
        ...

    @abstractmethod
    def read_labels(
        self, splits: Mapping[str, Dataset], column: str, origins: Mapping[str, str], config: DataConfig
    ) -> Labels:
        """Read the labels in `column`. Raises `DataError` naming the source and rows of invalid ones."""
        ...

    @abstractmethod
    def postprocess(self, logits: "torch.Tensor", config: Any, processor: Any) -> list[dict[str, Any]]:
        """Return one prediction per input, given the logits [inputs, …] in float32 and the final model's `config`."""
        ...

    def example_inputs(self, columns: Mapping[str, str]) -> tuple[str, ...]:
        return ("photo.jpg" if self.kind == "image" else "clip.wav",)

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        if isinstance(config.text, tuple) or isinstance(config.label, tuple):
            return False
        try:
            find_media_column(rows, self.kind, getattr(config, self.kind) or config.text, "")
            self._label_column(rows, config, "")
        except DataError:
            return False
        return True

    def find_columns(self, rows: Dataset, origin: str, config: DataConfig) -> SourceColumns:
        named = getattr(config, self.kind) or (config.text if isinstance(config.text, str) else None)
        column = find_media_column(rows, self.kind, named, origin)
        boxes = columns_named(rows, BOXES)
        if (
            self.kind == "image"
            and config.label is None
            and (len(boxes) >= 4 or columns_named(rows, ("bbox", "bboxes")))
        ):
            raise DataError(
                f"{origin}: each row is an object in an image, with its box ({', '.join(boxes) or 'bbox'}): object "
                "detection is not a task of hpo. To classify full images, write a table with one row per image."
            )
        label = self._label_column(rows, config, origin)
        return SourceColumns({self.kind: column, "label": label}, (column,), label)

    def _label_column(self, rows: Dataset, config: DataConfig, origin: str) -> str:
        known = rows.column_names
        if config.label is not None:
            assert not isinstance(config.label, tuple)
            if config.label not in known:
                raise missing_column("data.label", config.label, known, origin)
            return config.label
        found = columns_named(rows, self.label_columns)
        if not found:
            raise DataError(
                f"{origin}: which column holds the label? Columns: {enumerated(known)}. Name it in `data.label`."
            )
        return found[0]

    def read_examples(
        self, splits: Mapping[str, Dataset], columns: SourceColumns, origins: Mapping[str, str], config: DataConfig
    ) -> Examples:
        labels = self.read_labels(splits, columns.roles["label"], origins, config)
        canonical, notes = {}, []
        for split, rows in splits.items():
            where = origins[split]
            items = read_items(rows, columns.roles[self.kind], _folders(config, split), where)
            digests, measures = check_files(items, where, f"{config.path} {split}", self.kind, self.measure)
            notes += self.describe_files(measures, where)
            values = pa.array(labels.values[split])
            canonical[split] = Dataset(
                pa.table({self.kind: item_array(items), "digest": digests, "label": values, **group_column(rows)})
            )
        return Examples(canonical, labels.names, (*notes, *labels.notes))

    def hashed_rows(self, rows: Dataset) -> Dataset:
        return rows.remove_columns(self.kind)  # the digest stands for it

    def encode_labels(self, rows: Dataset, processor: Any) -> pa.Array:
        """Return the labels of prepared rows as the column `labels` that `encode` returns."""
        return pa.array(column_values(rows, "label"), pa.int64())

    def encode(self, rows: Dataset, processor: Any, max_length: int) -> Dataset:
        name, features = self.extract_features(media_values(rows, self.kind), processor, max_length)
        costs = pa.array(self.compute_costs(features, processor), pa.int32())
        table = pa.table({name: _column(features), "length": costs})
        if "label" in rows.column_names:
            table = table.append_column("labels", self.encode_labels(rows, processor))
        return Dataset(table)

    def predict(
        self, model: "PreTrainedModel", processor: Any, rows: Sequence[Any], max_length: int, batch_size: int = 64
    ) -> list[dict[str, Any]]:
        """Predict for paths of files, or their bytes."""
        items = [as_item(row) for row in rows]
        part = max(batch_size, self.encode_batch_size or 1)  # files whose arrays are in memory at once
        predictions: list[dict[str, Any]] = []
        for start in range(0, len(items), part):
            name, features = self.extract_features(items[start : start + part], processor, max_length)
            predictions += self._predict_features(model, processor, name, features, batch_size)
        return [
            {**prediction, self.kind: item["path"] or f"row {row}"}
            for row, (prediction, item) in enumerate(zip(predictions, items, strict=True), 1)
        ]

    def _predict_features(
        self, model: Any, processor: Any, name: str, features: Sequence[NDArray[Any]], batch_size: int
    ) -> list[dict[str, Any]]:
        def collate(indices: list[int]) -> Batch:
            return self.prepare_batch(pad_arrays(name, [features[index] for index in indices]), processor)

        def forward(batch: "Mapping[str, torch.Tensor]", indices: list[int]) -> list[dict[str, Any]]:
            return self.postprocess(self.logits(model, batch).float(), model.config, processor)

        return run_inference(model, [len(array) for array in features], collate, forward, batch_size)

    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[Any]:
        """Read one file, all files of a folder, those that a text file lists, one per line, or those of a table."""
        if path.is_dir():
            return [str(found) for found in media_files(path, self.kind)]
        path = locate(str(path), [Path()], "to predict")
        if path.suffix.lower() in EXTENSIONS[self.kind]:
            return [str(path)]
        if path.suffix.lower() == ".txt":
            names = [line.strip() for line in decode(path, encoding).splitlines() if line.strip()]
            return [str(locate(name, [path.parent, Path()], str(path))) for name in names]
        rows, _ = resolve_media(read_file(path, encoding), path.parent)
        trained = columns[self.kind]
        column = trained if trained in rows.column_names else find_media_column(rows, self.kind, None, path.name)
        return list(read_items(rows, column, [path.parent, Path()], path.name))


def _folders(config: DataConfig, split: str) -> list[Path]:
    """Return the folders that relative paths of a split's table may start from."""
    path = Path(config.path).expanduser()
    base = path if path.is_dir() else path.parent
    return [base, *(base / name for name in SPLITS[split]), base / "data"]


def _column(arrays: Sequence[NDArray[Any]]) -> pa.Array:
    """Return arrays of one shape as nested fixed-size lists; one-dimensional arrays of 16-bit floats as lists."""
    if arrays[0].ndim == 1 and arrays[0].dtype == np.float16:
        offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays])])
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(np.concatenate(arrays)))
    stacked = np.stack(arrays)
    column = pa.array(stacked.ravel())
    for size in stacked.shape[:0:-1]:
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column


def pad_arrays(name: str, arrays: Sequence[NDArray[Any]]) -> Batch:
    """Return a batch of the input `name`: arrays of one shape stacked, waveforms padded with zeros, with their mask."""
    return pad_batch({name: np.stack(arrays) if arrays[0].ndim > 1 else arrays}, {})
