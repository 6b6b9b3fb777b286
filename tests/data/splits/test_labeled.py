"""A test split without labels is skipped, whatever type they have; any other missing column is an error."""

from typing import Any

import pytest
from datasets import Dataset

from hpo.data.splits.labeled import drop_unlabeled, labeled_splits
from hpo.data.splits.raw import RawSplits
from hpo.errors import DataError


def raw(train: list[Any], validation: list[Any] | None, test: list[Any] | None, name: str = "label") -> RawSplits:
    splits = {"train": train, "validation": validation, "test": test}
    tables = {
        split: None if labels is None else Dataset.from_dict({"text": ["a"] * len(labels), name: labels})
        for split, labels in splits.items()
    }
    train_rows = tables["train"]
    assert train_rows is not None
    return RawSplits(train_rows, tables["validation"], tables["test"], {split: f"{split}.jsonl" for split in splits})


@pytest.mark.parametrize(
    ("label", "none"),
    [
        ("yes", ""),
        ("yes", None),
        (1, -1),
        (0.5, float("nan")),
        (["O", "B-x"], []),
        ([0, 1], [-1, -1]),
        ({"text": ["a"], "answer_start": [0]}, {"text": [], "answer_start": []}),
    ],
)
def test_unlabeled_test_split_is_skipped(label: Any, none: Any) -> None:
    splits, notes = labeled_splits(raw([label, label], [label], [none, none]), ("text",), "label", what="answers")
    assert list(splits) == ["train", "validation"]
    assert notes == ["test.jsonl has no answers and is not used"]
    assert list(labeled_splits(raw([label], None, [none, label]), ("text",), "label")[0]) == ["train", "test"]


def test_missing_column_raises_except_in_test() -> None:
    found = raw(["yes"], None, ["yes"])
    assert found.test is not None
    bare = RawSplits(found.train, None, found.test.remove_columns("label"), found.origins)
    assert list(labeled_splits(bare, ("text",), "label")[0]) == ["train"]
    misspelled = RawSplits(found.train, None, found.test.rename_column("label", "labl"), found.origins)
    with pytest.raises(DataError, match=r"data.label: test.jsonl has no column 'label'. Did you mean 'labl'"):
        labeled_splits(misspelled, ("text",), "label")
    without = RawSplits(found.train, found.test.remove_columns("label"), None, found.origins)
    with pytest.raises(DataError, match=r"data.label: validation.jsonl has no column 'label'"):
        labeled_splits(without, ("text",), "label")
    with pytest.raises(DataError, match=r"data.audio: train.jsonl has no column 'file'"):
        labeled_splits(found, ("file",), "label", key="audio")


def test_task_without_labels_uses_every_split() -> None:
    assert list(labeled_splits(raw(["x"], None, ["y"]), ("text",), None)[0]) == ["train", "test"]


def test_rows_without_a_label_are_dropped_and_counted() -> None:
    rows = Dataset.from_dict({"text": ["a", "b", "c", "d"], "label": ["x", "-", " ", None]})
    kept, notes = drop_unlabeled(rows, "label", (None, "", "-", "-1", -1), "d.csv")
    assert kept["text"][:] == ["a"] and notes == ["3 of 4 rows of d.csv dropped: no label"]
