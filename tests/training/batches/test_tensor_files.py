"""Columns of pixels and audio: written part by part, read back memory-mapped."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset

from hpo.training.batches.tensor_files import TensorFiles, open_tensors


def encoded(start: int, rows: int, width: int = 3) -> Dataset:
    """Return encoded inputs: pixels of shape [2, width], audio of growing length, and tokens."""
    pixels = pa.array(np.arange(rows * 2 * width, dtype=np.uint8) + start)
    for size in (width, 2):
        pixels = pa.FixedSizeListArray.from_arrays(pixels, size)
    audio = pa.array([np.full(row + 1, start + row, np.float16) for row in range(rows)], pa.list_(pa.float16()))
    tokens = pa.array([[1, 2]] * rows, pa.list_(pa.int32()))
    return Dataset(pa.table({"pixel_values": pixels, "input_values": audio, "input_ids": tokens}))


def test_parts_are_appended_and_read_back(tmp_path: Path) -> None:
    files = TensorFiles(tmp_path)
    rests = [files.extract(encoded(start, rows)) for start, rows in ((0, 2), (100, 3))]
    files.write_manifest()
    assert [rest.column_names for rest in rests] == [["input_ids"]] * 2
    columns = open_tensors(tmp_path)
    pixels, no_offsets = columns["pixel_values"]
    assert isinstance(pixels, np.memmap) and pixels.dtype == np.uint8 and pixels.shape == (5, 2, 3)
    assert no_offsets is None and pixels[2].ravel().tolist() == list(range(100, 106))
    audio, offsets = columns["input_values"]
    assert audio.dtype == np.float16 and offsets is not None and offsets.tolist() == [0, 1, 3, 4, 6, 9]
    assert audio[offsets[4] : offsets[5]].tolist() == [102] * 3


def test_inputs_of_another_shape_raise(tmp_path: Path) -> None:
    files = TensorFiles(tmp_path)
    files.extract(encoded(0, 2))
    with pytest.raises(ValueError, match=r"pixel_values: inputs of shape \[2, 4\] after inputs of shape \[2, 3\]"):
        files.extract(encoded(0, 2, width=4))
