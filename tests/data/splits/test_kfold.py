"""K-fold validation: every row is in one fold, groups stay together, classes are balanced, mistakes are reported."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from hpo.config.load import load_config
from hpo.config.study import DataConfig
from hpo.data.columns import FOLD, column_values
from hpo.errors import ConfigError, DataError
from hpo.tasks.registry import TASKS, get_task
from hpo.tasks.task_data import TaskData
from tests.contracts.task_data import write_rows


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    """Write rows of (class, group), each with a text of its own."""
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["patient", "text", "label"])
        for number, (label, group) in enumerate(rows):
            lines.writerow([group, f"note {number} of {group}", label])


def prepare(path: Path, seed: int = 3, **config: object) -> TaskData:
    return get_task("text-classification").prepare(DataConfig.model_validate({"path": str(path), **config}), seed)


def texts(data: TaskData) -> list[list[str]]:
    """Return the texts of each fold."""
    return [[column_values(data.splits[split], "text")[index] for index in indices] for split, indices in data.folds]


def test_each_row_outside_test_is_in_one_fold(tmp_path: Path) -> None:
    write(tmp_path / "notes.csv", [(("ill", "well")[number % 4 == 0], "p") for number in range(100)])
    data = prepare(tmp_path, folds=5)
    held_out = texts(data)
    assert [len(rows) for rows in held_out] == [17] * 5
    everything = [text for rows in held_out for text in rows]
    assert len(set(everything)) == 85 and not set(everything) & set(column_values(data.test, "text"))  # type: ignore[arg-type]
    assert texts(prepare(tmp_path, folds=5)) == held_out != texts(prepare(tmp_path, seed=4, folds=5))
    for split, indices in data.folds:
        labels = Counter(column_values(data.splits[split], "label")[index] for index in indices)
        assert sorted(labels.values()) in ([4, 13], [5, 12])  # of 64 and 21
    assert data.sizes == {"in 5 folds": 85, "test": 15}
    assert any("5 folds of the 85 training rows, stratified by label, seed 3" in note for note in data.notes)
    # The number of folds is part of the fingerprint: another number is another study.
    assert len({prepare(tmp_path, **settings).fingerprint for settings in ({}, {"folds": 4}, {"folds": 5})}) == 3


def test_groups_are_not_divided_between_folds(tmp_path: Path) -> None:
    rows = [(("ill", "well")[number % 2], f"p{number // 4}") for number in range(120)]
    write(tmp_path / "notes.csv", rows)
    data = prepare(tmp_path, folds=3, group="patient")
    patients = [{text.split()[-1] for text in fold} for fold in texts(data)]
    patients.append({text.split()[-1] for text in column_values(data.test, "text")})  # type: ignore[arg-type]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 30
    assert "_group" not in data.train.column_names and "folds of complete groups by 'patient'" in data.notes


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_folds(task: str, tmp_path: Path) -> None:
    folder = write_rows(task, tmp_path / "rows")
    for other in [*folder.glob("validation*"), *folder.glob("test*")]:
        shutil.rmtree(other) if other.is_dir() else other.unlink()
    grouped = {}
    if (folder / "train.jsonl").exists():
        rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
        lines = [json.dumps({**row, "site": f"s{number // 4}"}) for number, row in enumerate(rows)]
        (folder / "train.jsonl").write_text("\n".join(lines))
        grouped = {"group": "site"}
    data = get_task(task).prepare(DataConfig.model_validate({"path": str(folder), "folds": 3, **grouped}), 0)
    assert len(data.folds) == 3
    sizes = [len(indices) for _, indices in data.folds]
    assert sum(sizes) == sum(size for name, size in data.sizes.items() if name != "test") and max(sizes) <= 32
    assert FOLD in data.train.column_names and (data.test is None or FOLD not in data.test.column_names)


def test_too_few_rows_or_classes_raise_data_error(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [("well", "p")] * 30 + [("ill", "q")] * 3)
    with pytest.raises(DataError, match=r"data.folds: 5 folds, but class 'ill' has \d rows outside test"):
        prepare(tmp_path, folds=5)
    write(tmp_path / "train.csv", [("well", f"p{n}") for n in range(30)] + [("ill", "q")] * 5)
    write(tmp_path / "test.csv", [("well", "r"), ("ill", "s")])
    with pytest.raises(DataError, match=r"all rows of ill share a fold \(duplicates, or one group\)"):
        prepare(tmp_path, folds=3, group="patient")
    write(tmp_path / "train.csv", [("well", "p"), ("ill", "q")] * 4)
    with pytest.raises(DataError, match=r"data.folds: 9 folds need at least as many different training rows.* 8 rows"):
        prepare(tmp_path, folds=9)
    (tmp_path / "dev.csv").write_text((tmp_path / "test.csv").read_text())
    with pytest.raises(DataError, match=r"data.folds: dev.csv is a validation split already"):
        prepare(tmp_path, folds=3)
    study = {"name": "x", "models": ["a"]}
    for data, message in (
        ({"path": "x", "folds": 1}, r"data.folds: .*2"),
        ({"path": "x", "folds": 3, "validation": "dev.csv"}, "write validation or folds, not both"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config({**study, "data": data})
    with pytest.raises(ConfigError, match="refit: none keeps the model that was validated"):
        load_config({**study, "data": {"path": "x", "folds": 3}, "refit": "none"})
