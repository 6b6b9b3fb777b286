"""Tables in memory: saved and read back unchanged, and to the same file for the same rows."""

from pathlib import Path

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict

from hpo.config.study import DataConfig
from hpo.data.in_memory import save_tables
from hpo.data.sources import load_splits
from hpo.errors import ConfigError

ROWS = {"text": ["good", "bad", "fine"], "label": ["yes", "no", "yes"]}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    "table",
    [Dataset.from_dict(ROWS), pd.DataFrame(ROWS, index=[7, 8, 9]), {"path": pd.DataFrame(ROWS), "label": "label"}],
)
def test_table_is_read_back_unchanged(table: object) -> None:
    saved = save_tables(table)
    config = DataConfig(**saved) if isinstance(saved, dict) else DataConfig(path=saved)
    assert load_splits(config).train.to_dict() == ROWS
    assert save_tables(table) == saved
    assert len(list(Path(config.path).parent.iterdir())) == 1


@pytest.mark.parametrize("kind", [DatasetDict, dict])
def test_splits_are_kept(kind: type) -> None:
    part = Dataset.from_dict({"text": ["new"], "label": ["no"]})
    raw = load_splits(DataConfig(path=save_tables(kind({"train": Dataset.from_dict(ROWS), "test": part}))))
    assert raw.train.to_dict() == ROWS and raw.validation is None
    assert raw.test is not None and raw.test["text"][:] == ["new"]


def test_other_values_are_returned_unchanged() -> None:
    assert save_tables("reviews.csv") == "reviews.csv"
    assert save_tables({"path": "reviews.csv"}) == {"path": "reviews.csv"}


def test_unknown_split_or_unwritable_table_raises_config_error() -> None:
    with pytest.raises(ConfigError, match=r"data: 'dev' is not a split: name the tables train, validation, test"):
        save_tables({"train": pd.DataFrame(ROWS), "dev": pd.DataFrame(ROWS)})
    with pytest.raises(ConfigError, match="data: the table cannot be written as parquet"):
        save_tables({"test": pd.DataFrame(ROWS), "train": pd.DataFrame({"text": [1, "a"]})})
    saved = save_tables(pd.DataFrame(ROWS))  # and nothing of the table that failed
    assert [file.name for file in Path(saved).iterdir()] == ["train.parquet"]
    assert list(Path(saved).parent.iterdir()) == [Path(saved)]


@pytest.mark.parametrize("shards", [1, 2])
def test_folders_of_save_to_disk_are_read(shards: int, tmp_path: Path) -> None:
    rows = Dataset.from_dict(ROWS)
    rows.save_to_disk(tmp_path / "one", num_shards=shards)
    assert load_splits(DataConfig(path=str(tmp_path / "one"))).train.to_dict() == ROWS
    DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "both", num_shards={"train": shards, "test": 1})
    raw = load_splits(DataConfig(path=str(tmp_path / "both")))
    assert raw.train.to_dict() == ROWS and raw.test is not None
    pd.DataFrame(ROWS).to_feather(tmp_path / "rows.feather")
    assert load_splits(DataConfig(path=str(tmp_path / "rows.feather"))).train.to_dict() == ROWS
