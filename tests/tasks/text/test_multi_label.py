"""Multi-label classification: label sets as lists, as delimited text and as columns."""

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.errors import DataError
from hpo.tasks.registry import infer_task
from hpo.tasks.task_data import TaskData
from hpo.tasks.text.multi_label import MultiLabelClassification
from tests.tasks.small_data import Read, numbered


def spelled(data: TaskData) -> list[list[str]]:
    return [[data.label_names[index] for index in np.flatnonzero(row)] for row in data.train["label"][:]]


@pytest.mark.parametrize(
    ("labels", "config"),
    [
        ([["b", "a"], [], ["a"]], {}),
        (["b|a", "", "a"], {}),
        (["b and a", "", "a"], {"label_delimiter": " and "}),
    ],
)
def test_label_sets_from_lists_and_delimited_text(labels: list[Any], config: dict[str, Any], read: Read) -> None:
    data = read("multi-label-classification", numbered(*labels * 20), **config)
    assert data.label_names == ("a", "b")
    assert {tuple(names) for names in spelled(data)} == {("a", "b"), (), ("a",)}
    assert any("rows without any label" in note for note in data.notes)


def test_label_sets_from_columns(read: Read) -> None:
    rows = "text,rude,kind\n" + "".join(f"text {n},{n % 2},{int(n % 3 == 0)}\n" for n in range(60))
    data = read("multi-label-classification", rows, "d.csv", label=["rude", "kind"])
    assert data.label_names == ("kind", "rude")
    for text, names in zip(data.train["text"][:], spelled(data), strict=True):
        number = int(text.split()[1])
        assert names == [name for name, there in (("kind", number % 3 == 0), ("rude", number % 2)) if there]


@pytest.mark.parametrize(
    ("rows", "config", "message"),
    [
        (numbered("a", "b", "a"), {}, "one label a row"),
        (numbered(["a"], None, ["b"]), {}, "no list of labels in row 2"),
        ([{"text": "x", "a": 1, "b": 2}], {"label": ["a", "b"]}, "column 'b', row 1: '2' is neither 0 nor 1"),
        (numbered(["a"], ["a"]), {}, "1 class in all"),
    ],
)
def test_invalid_label_set_raises(rows: list[dict[str, Any]], config: dict[str, Any], message: str, read: Read) -> None:
    with pytest.raises(DataError) as error:
        read("multi-label-classification", rows, **config)
    assert message in str(error.value)


def test_several_label_columns_are_inferred_as_multi_label() -> None:
    rows = Dataset.from_dict({"text": ["one", "two"], "a": [0, 1], "b": [1, 1]})
    assert infer_task(rows, DataConfig(path="rows.csv", label=("a", "b"))).name == "multi-label-classification"


def test_paths_of_images_are_not_read_as_texts() -> None:
    rows = Dataset.from_dict({"image_id": ["a.png", "b.png"], "labels": [["x"], ["y"]]})
    with pytest.raises(DataError, match="paths of image files"):
        MultiLabelClassification().find_columns(rows, "d.csv", DataConfig(path="d.csv", text="image_id"))
