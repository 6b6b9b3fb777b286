"""What the tasks on images and sound share: finding the files, encoding what is in them, predicting for others."""

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
from hpo.data.readers import decode, read_file
from hpo.data.sources import SPLITS, load_splits
from hpo.data.splits.create import create_splits
from hpo.data.splits.labeled import labeled_splits
from hpo.errors import DataError
from hpo.tasks.base import Batch, Task
from hpo.tasks.task_data import Labels, TaskData, fingerprint

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class MediaTask(Task):
    """A file of an image or sound → what is said of it. Prepared rows are the file, its digest and its label."""

    kind: str
    """image or audio: the column of prepared rows, and the key under `data` that names a person's."""
    label_columns: tuple[str, ...] = LABELS
    """What a person's column of labels may be called, in the order of preference."""

    @abstractmethod
    def measure(self, item: Item) -> float:
        """Decode a file; the seconds that it lasts, 0 for an image. May raise anything that its decoder does."""
        ...

    def remark(self, measures: Sequence[float], origin: str) -> list[str]:
        """Notes on what `measure` found of a split."""
        return []

    @abstractmethod
    def arrays(self, items: Sequence[Item], processor: Any, max_length: int) -> tuple[str, list[NDArray[Any]]]:
        """The name of the model's input, and each file as such, as small as it is kept: bytes, or 16-bit floats."""
        ...

    @abstractmethod
    def costs(self, arrays: Sequence[NDArray[Any]], processor: Any) -> list[int]:
        """What each takes to compute, in tokens of a text."""
        ...

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

    @abstractmethod
    def strata(self, rows: Dataset) -> list[int]:
        """A number for each row: made splits hold the same share of each number."""
        ...

    @abstractmethod
    def postprocess(self, logits: "torch.Tensor", config: Any, processor: Any) -> list[dict[str, Any]]:
        """What is said of each input, by the logits of a final model with `config`."""
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

    def _label_column(self, rows: Dataset, config: DataConfig, origin: str) -> str:
        known = rows.column_names
        if isinstance(config.label, tuple):
            raise DataError(f"data.label: {self.name} reads one column; these are {len(config.label)}.")
        if config.label is not None:
            if config.label not in known:
                raise missing_column("data.label", config.label, known, origin)
            return config.label
        called = columns_named(rows, self.label_columns)
        if not called:
            raise DataError(
                f"{origin}: which column holds the label? Columns: {', '.join(known)}. Name it in `data.label`."
            )
        return called[0]

    def prepare(self, config: DataConfig, seed: int) -> TaskData:
        raw = load_splits(config, seed)
        origin = raw.origins["train"]
        named = getattr(config, self.kind) or (config.text if isinstance(config.text, str) else None)
        column = find_media_column(raw.train, self.kind, named, origin)
        label = self._label_column(raw.train, config, origin)
        splits, notes = labeled_splits(raw, (column,), label, self.kind)
        labels = self.read_labels(splits, label, raw.origins, config)
        given = {}
        for split, rows in splits.items():
            items = read_items(rows, column, _folders(config, split), raw.origins[split])
            where = raw.origins[split]
            digests, measures = check_files(items, where, f"{config.path} {split}", self.kind, self.measure)
            notes += self.remark(measures, where)
            values = pa.array(labels.values[split])
            given[split] = Dataset(
                pa.table({self.kind: item_array(items), "digest": digests, "label": values, **group_column(rows)})
            )
        origins = {split: raw.origins[split] for split in given}
        self.check_labels(given, labels.names, origins)
        whole, made = create_splits(given, config, seed, self.strata)
        doubtful = self.check_labels(whole, labels.names, origins)
        content = {split: rows.remove_columns(self.kind) for split, rows in whole.items()}
        return TaskData(
            whole["train"],
            whole["validation"],
            whole.get("test"),
            labels.names,
            {self.kind: column, "label": label},
            (*notes, *raw.notes, *labels.notes, *made, *doubtful),
            fingerprint(self.name, content, labels.names),
        )

    def encode_labels(self, rows: Dataset, processor: Any) -> pa.Array:
        """The label column of prepared rows as `encode` hands it on."""
        return pa.array(column_values(rows, "label"), pa.int64())

    def encode(self, rows: Dataset, processor: Any, max_length: int) -> Dataset:
        name, arrays = self.arrays(media_values(rows, self.kind), processor, max_length)
        table = pa.table({name: _column(arrays), "length": pa.array(self.costs(arrays, processor), pa.int32())})
        if "label" in rows.column_names:
            table = table.append_column("labels", self.encode_labels(rows, processor))
        return Dataset(table)

    def predict(
        self, model: "PreTrainedModel", processor: Any, rows: Sequence[Any], max_length: int, batch_size: int = 64
    ) -> list[dict[str, Any]]:
        """As `Task.predict`, for paths of files, or the bytes of such."""
        import torch

        items = [as_item(row) for row in rows]
        said: list[dict[str, Any]] = [{} for _ in items]
        at_once = max(batch_size, self.encode_batch_size or 1)
        model.eval()
        for first in range(0, len(items), at_once):
            part = items[first : first + at_once]
            name, arrays = self.arrays(part, processor, max_length)
            # Longest first: batches of like lengths hold little padding.
            order = sorted(range(len(part)), key=lambda place: -len(arrays[place]))
            for start in range(0, len(order), batch_size):
                places = order[start : start + batch_size]
                batch = self.prepare_batch(padded(name, [arrays[place] for place in places]), processor)
                with torch.inference_mode():
                    given = {key: value.to(model.device) for key, value in batch.items()}
                    logits = self.logits(model, given).float()
                for place, answer in zip(places, self.postprocess(logits, model.config, processor), strict=True):
                    said[first + place] = {**answer, self.kind: _shown(items[first + place], first + place)}
        return said

    def read_inputs(self, path: Path, columns: Mapping[str, str], encoding: str = "utf-8") -> list[Any]:
        """A file of the kind, all of a folder, those that a text file names line by line, or those of a table."""
        if path.is_dir():
            return [str(found) for found in media_files(path, self.kind)]
        path = locate(str(path), [Path()], "to predict")
        if path.suffix.lower() in EXTENSIONS[self.kind]:
            return [str(path)]
        if path.suffix.lower() == ".txt":
            names = [line.strip() for line in decode(path, encoding).splitlines() if line.strip()]
            return [str(locate(name, [path.parent, Path()], str(path))) for name in names]
        rows = read_file(path, encoding)
        trained = columns[self.kind]
        column = trained if trained in rows.column_names else find_media_column(rows, self.kind, None, path.name)
        return list(read_items(rows, column, [path.parent, Path()], path.name))


def _folders(config: DataConfig, split: str) -> list[Path]:
    """Where relative paths of a split's table may start."""
    path = Path(config.path).expanduser()
    base = path if path.is_dir() else path.parent
    return [base, *(base / name for name in SPLITS[split]), base / "data"]


def _shown(item: Item, place: int) -> str:
    return item["path"] or f"row {place + 1}"


def _column(arrays: Sequence[NDArray[Any]]) -> pa.Array:
    """Arrays of one shape as nested fixed-size lists; of one dimension and different lengths as lists."""
    if arrays[0].ndim == 1 and arrays[0].dtype == np.float16:
        offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays])])
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(np.concatenate(arrays)))
    stacked = np.stack(arrays)
    column = pa.array(stacked.ravel())
    for size in stacked.shape[:0:-1]:
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column


def padded(name: str, arrays: Sequence[NDArray[Any]]) -> Batch:
    """A batch as training makes it: arrays of one shape as they are, others padded with zeros and their mask."""
    import torch

    if arrays[0].ndim > 1:
        stacked = np.stack(arrays)
        return {name: torch.from_numpy(stacked if stacked.dtype == np.uint8 else stacked.astype(np.float32))}
    sizes = np.array([len(array) for array in arrays])
    mask = np.arange(sizes.max())[None, :] < sizes[:, None]
    values = np.zeros(mask.shape, np.float32)
    values[mask] = np.concatenate(arrays)
    return {name: torch.from_numpy(values), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
