"""Stores columns of pixels and audio in files of their own: written part by part and memory-mapped, never copied.

folder/NAME.bin        the values of all inputs, in the type that the task encoded (bytes, 16-bit floats)
folder/tensors.json    their types, shapes and lengths
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from hpo.training.batches.features import Column

MANIFEST = "tensors.json"


class TensorFiles:
    """Writes the tensor columns of one split to `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, dict[str, Any]] = {}

    def extract(self, encoded: Dataset) -> Dataset:
        """Append the tensor columns of a part of the split to their files, and return the part without them.

        Raises `ValueError` where its inputs have another shape than those before.
        """
        names = [name for name in encoded.column_names if _is_tensor(name, encoded.data.table.schema.field(name).type)]
        for name in names:
            values, sizes, shape = _flatten(encoded.data.table.column(name).combine_chunks())
            known = self._written.setdefault(
                name, {"dtype": values.dtype.name, "shape": shape, "sizes": None if sizes is None else []}
            )
            if known["shape"] != shape:
                raise ValueError(f"{name}: inputs of shape {shape} after inputs of shape {known['shape']}")
            if sizes is not None:
                known["sizes"] += sizes
            with (self._folder / f"{name}.bin").open("ab") as file:
                values.tofile(file)
        return encoded.remove_columns(names)

    def write_manifest(self) -> None:
        """Write `tensors.json`, which `open_tensors` reads."""
        (self._folder / MANIFEST).write_text(json.dumps(self._written))


def open_tensors(folder: Path) -> dict[str, Column]:
    """Return the columns in `folder`: ([inputs, *shape], None), or all values and the offsets of the inputs."""
    found: dict[str, Column] = {}
    for name, known in json.loads((folder / MANIFEST).read_text()).items():
        values = np.memmap(folder / f"{name}.bin", known["dtype"], mode="r").reshape(-1, *known["shape"])
        sizes = known["sizes"]
        found[name] = (values, None if sizes is None else np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    return found


def _is_tensor(name: str, kind: pa.DataType) -> bool:
    """Return whether a column holds arrays: of a fixed shape, or of 16-bit floats."""
    if name == "labels" or name.startswith("_"):
        return False
    return pa.types.is_fixed_size_list(kind) or (_is_list(kind) and not pa.types.is_integer(kind.value_type))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _flatten(array: Any) -> tuple[Any, list[int] | None, list[int]]:
    """Return the values of an Arrow array of (lists of) arrays, the lengths of its lists, and the arrays' shape."""
    sizes = None
    if _is_list(array.type):
        sizes = np.diff(array.offsets.to_numpy()).tolist()
        array = array.flatten()
    shape = []
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    return array.to_numpy(zero_copy_only=False), sizes, shape
