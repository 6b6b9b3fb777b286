"""Where data is found, and that every kind of file gives the same rows."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hpo.config.study import DataConfig
from hpo.data.readers import read_file
from hpo.data.sources import RawSplits, load_splits
from hpo.errors import DataError
from hpo.tasks.registry import get_task

ROWS = {"text": ["one, two", 'she said "no"', "three\nfour"], "label": ["a", "b", "a"]}


def load(path: Path, **config: Any) -> RawSplits:
    return load_splits(DataConfig(path=str(path), **config))


def one_row(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"text,label\n{path.as_posix()},a\n")
    return path


CSV = 'text,label\n"one, two",a\n"she said ""no""",b\n"three\nfour",a\n'
OBJECTS = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
SPELLINGS = {
    "d.csv": CSV,
    "crlf.csv": CSV.replace("\n", "\r\n").replace("three\r\n", "three\n"),
    "blank_lines.csv": CSV + "\n\n",
    "excel.csv": CSV.replace('"one, two",', '"one, two";').replace(",label", ";label").replace('",', '";'),
    "d.tsv": CSV.replace("text,label", "text\tlabel").replace('",', '"\t'),
    "d.jsonl": "\n".join(map(json.dumps, OBJECTS)),
    "lines.json": "\n\n".join(map(json.dumps, OBJECTS)),
    "list.json": json.dumps(OBJECTS, indent=1),
    "squad_like.json": json.dumps({"version": 1, "data": OBJECTS}),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(SPELLINGS[name].encode())
    raw = load(tmp_path / name)
    assert raw.train.to_dict() == ROWS
    assert raw.origins == {"train": name}
    assert raw.validation is None and raw.test is None


def test_parquet_with_a_pandas_category(tmp_path: Path) -> None:
    table = pa.table({"text": ROWS["text"], "label": pa.array(ROWS["label"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "d.parquet")
    assert load(tmp_path / "d.parquet").train.to_dict() == ROWS


def test_a_tsv_that_knows_no_quoting_keeps_its_quote_marks(tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text('text\tlabel\n"Good" she said\ta\nI said "so\tb\n"no\ta\n')
    assert load(tmp_path / "d.tsv").train["text"][:] == ['"Good" she said', 'I said "so', '"no']


def test_a_text_longer_than_the_csv_module_allows_by_itself(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(f"text,label\n{'word ' * 40_000},a\n")
    assert len(load(tmp_path / "d.csv").train["text"][0]) == 200_000


def test_a_column_without_a_name_gets_one(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(",text,label\n0,hello,a\n")
    assert load(tmp_path / "d.csv").train.column_names == ["column_1", "text", "label"]


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
def test_folders_are_recognised(names: tuple[str, str, str], tmp_path: Path) -> None:
    for name in (*names, "train_imbalanced.csv", "notes/other.csv"):
        one_row(tmp_path / name)
    (tmp_path / "README.md").write_text("about")
    raw = load(tmp_path)
    for split, name in zip(("train", "validation", "test"), names, strict=True):
        assert raw.present()[split]["text"][:] == [(tmp_path / name).as_posix()]


def test_shards_and_folders_of_files_are_joined_in_order(tmp_path: Path) -> None:
    paths = [one_row(tmp_path / f"train-0000{n}-of-00002.csv") for n in range(2)]
    paths += [one_row(tmp_path / "test" / f"{n}.csv") for n in "ab"]
    raw = load(tmp_path)
    assert raw.train["text"][:] == [path.as_posix() for path in paths[:2]]
    assert raw.test is not None
    assert raw.test["text"][:] == [path.as_posix() for path in paths[2:]]


def test_parts_of_one_split_must_agree(tmp_path: Path) -> None:
    one_row(tmp_path / "train" / "a.csv")
    (tmp_path / "train" / "b.csv").write_text("body,label\nx,a\n")
    with pytest.raises(DataError, match=r"b\.csv: its columns \(body, label\) are not those of a\.csv"):
        load(tmp_path)


def test_the_only_file_of_a_folder_is_the_data(tmp_path: Path) -> None:
    one_row(tmp_path / "reviews.csv")
    assert load(tmp_path).origins == {"train": "reviews.csv"}


def test_the_study_names_what_is_not_recognised(tmp_path: Path) -> None:
    for name in ("train.csv", "train_imbalanced.csv", "test.csv", "held/out.csv"):
        one_row(tmp_path / name)
    raw = load(tmp_path, train="train_imbalanced", validation="held/out.csv", test=str(tmp_path / "test.csv"))
    assert raw.origins == {"train": "train_imbalanced.csv", "validation": "out.csv", "test": "test.csv"}


def test_a_file_named_for_one_split_is_not_also_another(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        one_row(tmp_path / name)
    assert load(tmp_path, validation="test.csv").origins == {"train": "train.csv", "validation": "test.csv"}


def test_a_kind_of_file_that_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "d.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"'\.xlsx' are not read\. Allowed: \.csv"):
        read_file(tmp_path / "d.xlsx")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset of three splits in place of the hub's; the rest of the way is the real one."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    splits = {
        name: Dataset.from_dict({"text": [f"{name} {n}" for n in range(20)], "label": labels}, features=features)
        for name, labels in (("train", [0, 1] * 10), ("dev", [1, 0] * 10), ("test", [-1] * 20))
    }
    monkeypatch.setattr("hpo.data.sources.load_dataset", lambda path, name, revision: DatasetDict(splits))


def test_hub_splits_are_recognised(hub: None) -> None:
    raw = load_splits(DataConfig(path="someone/reviews"))
    assert raw.origins == {
        "train": "someone/reviews[train]",
        "validation": "someone/reviews[dev]",
        "test": "someone/reviews[test]",
    }
    data = get_task("text-classification").prepare(DataConfig(path="someone/reviews"), 0)
    assert data.label_names == ("bad", "good")
    assert "someone/reviews[test] has no labels and is not used" in data.notes


def test_a_hub_split_that_is_not_there(hub: None) -> None:
    with pytest.raises(DataError, match=r"no split 'devel'\. Did you mean 'dev'\? It has: train, dev, test"):
        load_splits(DataConfig(path="someone/reviews", validation="devel"))


@pytest.mark.parametrize(
    ("status", "says"), [(None, "out of reach"), (404, "no dataset of that name"), (500, "the Hugging Face hub says: ")]
)
def test_the_hub_is_asked_once_and_never_waited_for(
    status: int | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real request to a server on this machine: one that answers, and a port where none listens."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
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
        with pytest.raises(DataError) as told:
            load_splits(DataConfig(path="someone/reviews"))
    finally:
        if serving:
            server.shutdown()
            serving.join()
            server.server_close()
    assert says in str(told.value) and "'someone/reviews' is not a file or folder here" in str(told.value)
    assert len(asked) == (1 if status else 0)
