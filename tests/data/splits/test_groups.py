"""Grouped splits: a group is never in two splits, whether these are given or created."""

import csv
from pathlib import Path

import pytest

from hpo.config.study import DataConfig
from hpo.data.columns import column_values
from hpo.errors import DataError
from hpo.tasks.registry import get_task
from hpo.tasks.task_data import TaskData


def write(path: Path, groups: list[str], start: int = 0) -> None:
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["patient", "text", "label"])
        for row, group in enumerate(groups, start):
            lines.writerow([group, f"note {row} of {group}", ("ill", "well")[row % 2]])


def prepare(folder: Path, **config: object) -> TaskData:
    settings = DataConfig.model_validate({"path": str(folder), "group": "patient", **config})
    return get_task("text-classification").prepare(settings, seed=3)


def sides(data: TaskData) -> dict[str, set[str]]:
    return {split: {text.split()[-1] for text in column_values(rows, "text")} for split, rows in data.splits.items()}


def test_created_splits_have_complete_groups(tmp_path: Path) -> None:
    write(tmp_path / "notes.csv", [f"p{row // 4}" for row in range(80)])
    data = prepare(tmp_path)
    found = sides(data)
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 20
    assert all(3 <= len(found[split]) <= 4 for split in ("validation", "test"))  # 0.15 of 20
    assert data.columns == {"text": "text", "label": "label"}
    assert any("complete groups of the 20 by 'patient', seed 3" in note for note in data.notes)
    assert sides(prepare(tmp_path)) == found


def test_shared_groups_stay_in_the_split_used_later(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [f"p{row // 4}" for row in range(60)])
    write(tmp_path / "test.csv", ["p0", "p0", "q1", "q2"], start=100)
    data = prepare(tmp_path)
    assert not sides(data)["test"] & (sides(data)["train"] | sides(data)["validation"])
    assert "4 training rows dropped: the same 'patient' is in test" in data.notes


def test_missing_column_or_value_raises_data_error(tmp_path: Path) -> None:
    write(tmp_path / "notes.csv", ["a", "a", "b", "b"])
    with pytest.raises(DataError, match=r"2 groups by 'patient': test and validation each need one of their own"):
        prepare(tmp_path)
    with pytest.raises(DataError, match=r"data.group: .* 'patents'"):
        prepare(tmp_path, group="patents")
    write(tmp_path / "notes.csv", ["a", "", "b", "c"])
    with pytest.raises(DataError, match="row 2: no 'patient'"):
        prepare(tmp_path)
