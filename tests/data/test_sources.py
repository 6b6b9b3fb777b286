"""Where data is found: files, folders, shards, hub datasets."""

import gzip
import os
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hpo.config.study import DataConfig
from hpo.data.sources import load_splits, read_once
from hpo.data.splits.raw import RawSplits
from hpo.errors import DataError
from hpo.tasks.registry import get_task


def load(path: Path, **config: Any) -> RawSplits:
    return load_splits(DataConfig(path=str(path), **config))


def one_row(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"text,label\n{path.as_posix()},a\n")
    return path


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "validation.csv", "test.csv"),
        ("train.csv", "valid.csv", "test.csv"),
        ("TRAIN.CSV", "val.csv", "test.csv"),
        ("training.csv", "dev.csv", "test.csv"),
        ("train/part.csv", "dev/part.csv", "test/part.csv"),
        ("data/train-00000-of-00001.csv", "data/validation-00000-of-00001.csv", "data/test-00000-of-00001.csv"),
    ],
)
def test_splits_are_recognized_by_name(names: tuple[str, str, str], tmp_path: Path) -> None:
    for name in (*names, "train_imbalanced.csv", "notes/other.csv"):
        one_row(tmp_path / name)
    (tmp_path / "README.md").write_text("about")
    raw = load(tmp_path)
    for split, name in zip(("train", "validation", "test"), names, strict=True):
        assert raw.present()[split]["text"][:] == [(tmp_path / name).as_posix()]


def test_shards_and_folders_of_files_are_concatenated_in_order(tmp_path: Path) -> None:
    paths = [one_row(tmp_path / f"train-0000{n}-of-00002.csv") for n in range(2)]
    paths += [one_row(tmp_path / "test" / f"{n}.csv") for n in "ab"]
    raw = load(tmp_path)
    assert raw.train["text"][:] == [path.as_posix() for path in paths[:2]]
    assert raw.test is not None
    assert raw.test["text"][:] == [path.as_posix() for path in paths[2:]]


def test_files_of_one_split_need_the_same_columns(tmp_path: Path) -> None:
    one_row(tmp_path / "train" / "a.csv")
    (tmp_path / "train" / "b.csv").write_text("body,label\nx,a\n")
    with pytest.raises(DataError, match=r"b\.csv: its columns \(body, label\) differ from those of a\.csv"):
        load(tmp_path)


def test_only_file_of_a_folder_is_the_data(tmp_path: Path) -> None:
    one_row(tmp_path / "reviews.csv")
    assert load(tmp_path).origins == {"train": "reviews.csv"}


def test_study_may_name_the_splits(tmp_path: Path) -> None:
    for name in ("train.csv", "train_imbalanced.csv", "test.csv", "held/out.csv"):
        one_row(tmp_path / name)
    raw = load(tmp_path, train="train_imbalanced", validation="held/out.csv", test=str(tmp_path / "test.csv"))
    assert raw.origins == {"train": "train_imbalanced.csv", "validation": "out.csv", "test": "test.csv"}


def test_file_named_for_one_split_is_not_used_for_another(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        one_row(tmp_path / name)
    assert load(tmp_path, validation="test.csv").origins == {"train": "train.csv", "validation": "test.csv"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the hub's dataset by one of three splits; everything else is real."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    splits = {
        name: Dataset.from_dict({"text": [f"{name} {n}" for n in range(20)], "label": labels}, features=features)
        for name, labels in (("train", [0, 1] * 10), ("dev", [1, 0] * 10), ("test", [-1] * 20))
    }
    monkeypatch.setattr("hpo.data.hub.load_dataset", lambda path, name, revision: DatasetDict(splits))


def test_hub_splits_are_recognized(hub: None) -> None:
    raw = load_splits(DataConfig(path="someone/reviews"))
    assert raw.origins == {
        "train": "someone/reviews[train]",
        "validation": "someone/reviews[dev]",
        "test": "someone/reviews[test]",
    }
    data = get_task("text-classification").prepare(DataConfig(path="someone/reviews"), 0)
    assert data.label_names == ("bad", "good")
    assert "someone/reviews[test] has no labels and is not used" in data.notes


def test_missing_hub_split_raises_data_error(hub: None) -> None:
    with pytest.raises(DataError, match=r"no split 'devel'\. Did you mean 'dev'\? Splits: train, dev, test"):
        load_splits(DataConfig(path="someone/reviews", validation="devel"))


@pytest.mark.parametrize(
    ("status", "message"),
    [(None, "unreachable"), (404, "no dataset of that name"), (500, "the Hugging Face hub responds: ")],
)
def test_hub_errors_are_reported_after_one_request(
    status: int | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real request to a local server that responds, and to a port where none listens."""
    requests: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(status or 200)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    serving = Thread(target=server.serve_forever) if status else None
    if serving:
        serving.start()
    else:
        server.server_close()
    try:
        with pytest.raises(DataError) as raised:
            load_splits(DataConfig(path="someone/reviews"))
    finally:
        if serving:
            server.shutdown()
            serving.join()
            server.server_close()
    assert message in str(raised.value) and "'someone/reviews' is not a file or folder here" in str(raised.value)
    assert len(requests) == (1 if status else 0)


def test_source_is_read_once_within_the_context(tmp_path: Path) -> None:
    config = DataConfig(path=str(one_row(tmp_path / "reviews.csv")))
    with read_once():
        assert load_splits(config).train is load_splits(config.model_copy(update={"label": "label"})).train
    assert load_splits(config).train is not load_splits(config).train


def test_archives_pipes_and_broken_links_are_named(tmp_path: Path) -> None:
    table = one_row(tmp_path / "d.csv")
    with zipfile.ZipFile(tmp_path / "z.csv", "w") as archive:
        archive.write(table)
    (tmp_path / "g.csv").write_bytes(gzip.compress(table.read_bytes()))
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "link.csv").symlink_to("nowhere.csv")
    messages = {
        "z": "is a zip file, whatever its name: unpack it",
        "g": "is a gzip file",
        "pipe": "is a pipe or a device",
        "link": "is a link to nowhere.csv, which does not exist",
    }
    for name, message in messages.items():
        with pytest.raises(DataError, match=message):
            load(tmp_path / f"{name}.csv")


def test_ten_thousand_columns_are_not_all_listed(tmp_path: Path) -> None:
    names = [f"column{number}" for number in range(10_000)]
    Dataset.from_dict({name: ["x", "y"] for name in names}).to_parquet(tmp_path / "wide.parquet")
    for named in ({}, {"text": "columm7", "label": "column1"}, {"label": "colum9"}):
        data = DataConfig(path=str(tmp_path / "wide.parquet"), **named)
        with pytest.raises(DataError, match="column19 and 9,980 more") as error:
            get_task("text-classification").prepare(data, seed=0)
        assert len(str(error.value)) < 600


def test_thousands_of_classes_with_two_rows_ask_about_the_label_column(tmp_path: Path) -> None:
    rows = [f"the text of row {number},class{number % 50}" for number in range(100)]
    (tmp_path / "d.csv").write_text("\n".join(["text,label", *rows]))
    with pytest.raises(DataError, match=r"2\.0 rows per class on average.*is `data.label` the right column"):
        get_task("text-classification").prepare(DataConfig(path=str(tmp_path / "d.csv")), seed=0)
