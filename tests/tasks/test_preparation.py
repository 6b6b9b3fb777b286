"""`Task.prepare` on users' files: every mistake raises before training, with its file, row and remedy."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpo.config.study import DataConfig
from hpo.errors import DataError
from hpo.tasks.registry import get_task
from tests.tasks.small_data import Prepare, rows

PLENTY = ["yes", "no"] * 20


class Refused(NamedTuple):
    """Files, the study's `data` keys, and the parts of the message."""

    files: dict[str, str | bytes]
    config: dict[str, Any]
    parts: list[str]


def jsonl(*labels: object) -> str:
    return "\n".join(json.dumps({"text": f"text {index}", "label": label}) for index, label in enumerate(labels))


REFUSED = {
    "1 missing text column": Refused(
        {"d.csv": rows(*PLENTY)}, {"text": "txt"}, ["data.text", "'txt'", "Did you mean 'text'?", "text, label"]
    ),
    "1 missing label column": Refused(
        {"d.csv": rows(*PLENTY)}, {"label": "lable"}, ["data.label", "Did you mean 'label'?", "d.csv"]
    ),
    "1 no column is known": Refused({"d.csv": rows(*PLENTY, header="foo,bar")}, {}, ["foo, bar", "data.label"]),
    "1 validation misses the label": Refused(
        {"train.csv": rows(*PLENTY), "validation.csv": rows("yes", start=90, header="text,lable")},
        {},
        ["validation.csv", "'label'", "Did you mean 'lable'?"],
    ),
    "1 no header": Refused(
        {"d.csv": "a film that nobody should ever have to see again,0\n" * 5},
        {},
        ["every training label is '0'"],  # the first line is read as a row
    ),
    "2 empty labels": Refused(
        {"d.csv": rows("yes", "", "no", " ", *PLENTY)},
        {},
        ["2 of 44 rows without a label", "rows 2, 4 below the header", "d.csv"],
    ),
    "2 NaN among ids": Refused(
        {"d.csv": rows(0, 1, "nan", *[0, 1] * 20)}, {}, ["1 of 43 rows without a label", "row 3"]
    ),
    "2 null in JSON": Refused({"d.jsonl": jsonl("a", None, "b", *PLENTY)}, {}, ["1 of 43 rows", "row 2"]),
    "3 one class": Refused({"d.csv": rows(*["yes"] * 20)}, {}, ["'yes'", "at least two classes"]),
    "4 one class in validation": Refused(
        {"train.csv": rows(*PLENTY), "validation.csv": rows("yes", "yes", start=90)},
        {},
        ["validation.csv", "every validation label is 'yes'", "stratified"],
    ),
    "4 a class that only test has": Refused(
        {"train.csv": rows(*PLENTY), "test.csv": rows("yes", "maybe", start=90)},
        {},
        ["test.csv", "1 class that", "maybe (1 row)", "no training row has"],
    ),
    "7 negative ids": Refused(
        {"d.csv": rows(0, 1, -3, *[0, 1] * 20)}, {}, ["1 negative id, such as -3 (row 3 below", "count from 0"]
    ),
    "8 every label ignored": Refused({"d.csv": rows(*[-100] * 20)}, {}, ["every label is -100", "nothing to learn"]),
    "9 fractions": Refused({"d.csv": rows("0.5", "1.25", "3.0")}, {}, ["row 1", "0.5", "regression"]),
    "10 empty texts": Refused(
        {"d.csv": "text,label\na,yes\n  ,no\n,yes\n" + rows(*PLENTY).split("\n", 1)[1]},
        {},
        ["2 of 43 rows", "rows 2, 3", "data.drop_empty: true"],
    ),
    "11 one row": Refused({"d.csv": rows("yes")}, {}, ["1 row is too few"]),
    "11 too few rows to split": Refused(
        {"d.csv": rows("yes", "no")}, {}, ["2 training rows (2 different texts, 2 classes) are too few"]
    ),
    "11 too few texts to split": Refused(
        {"d.csv": "text,label\n" + "a,yes\nb,no\n" * 20}, {}, ["40 training rows (2 different texts, 2 classes)"]
    ),
    "12 empty file": Refused({"d.csv": "\n\n"}, {}, ["d.csv", "is empty"]),
    "12 header only": Refused({"d.csv": "text,label\n"}, {}, ["d.csv", "no rows below it"]),
    "12 empty folder": Refused({"notes.md": "nothing"}, {}, ["train.csv", "Found: notes.md"]),
    "13 nothing but shared rows": Refused(
        {"train.csv": rows(*PLENTY), "test.csv": rows(*PLENTY)}, {}, ["every row of train is in test"]
    ),
    "14 not UTF-8": Refused(
        {"d.csv": "text,label\nfine,yes\ncaf\xe9,no\n".encode("cp1252")},
        {},
        ["d.csv, line 3", "byte 24", "0xe9", "data.encoding: cp1252"],
    ),
    "14 UTF-16": Refused({"d.csv": rows(*PLENTY).encode("utf-16")}, {}, ["line 1", "data.encoding: utf-16"]),
    "14 no such encoding": Refused({"d.csv": rows(*PLENTY)}, {"encoding": "utf-9"}, ["'utf-9'", "latin-1"]),
    "14 NUL": Refused({"d.csv": rows(*PLENTY).encode("utf-16-le")}, {}, ["line 1", "data.encoding: utf-16"]),
    "14 half a character": Refused(
        {"d.jsonl": jsonl("a", "b") + '\n{"text": "\\ud83d", "label": "a"}'}, {}, ["column 'text'", "lone surrogate"]
    ),
    "16 too large a number": Refused({"d.jsonl": jsonl(1, 2**64)}, {}, ["column 'label'", "64 bits"]),
    "17 a name too long for a path": Refused({}, {"path": "x" * 5000}, ["File name too long"]),
    "15 ragged": Refused(
        {"d.csv": 'text,label\n"two\nlines",yes\nHello, world,no\n'},
        {},
        ["d.csv, line 4", "3 fields where the header has 2", "double quotes"],
    ),
    "15 a quote that never ends": Refused(
        {"d.csv": 'text,label\nfine,yes\n"never ends,no\nfine,yes\n'}, {}, ["d.csv, line 3", "double quote"]
    ),
    "15 a broken JSON line": Refused({"d.jsonl": jsonl("a", "b") + '\n{"text": '}, {}, ["d.jsonl, line 3"]),
    "15 a column twice": Refused({"d.csv": "text,label,text\na,b,c\n"}, {}, ["line 1", "'text' twice"]),
    "16 mixed in csv": Refused(
        {"d.csv": rows(0, 1, "spam", 1)}, {}, ["mixed type", "3 numbers (0 in row 1)", "1 word (spam in row 3)"]
    ),
    "16 mixed in JSON": Refused(
        {"d.jsonl": jsonl(1, "1", 2)}, {}, ["mixed type", "2 whole numbers", '1 word ("1" in row 2)']
    ),
    "16 lists as labels": Refused({"d.jsonl": jsonl(["a"], ["b"])}, {}, ["one label"]),
    "16 numbers as text": Refused(
        {"d.jsonl": '{"text": 1, "label": "a"}\n{"text": 2, "label": "b"}'}, {}, ["not text", "label"]
    ),
    "two files for one split": Refused(
        {"train.csv": rows(*PLENTY), "train.jsonl": jsonl("a", "b")}, {}, ["train.csv and train.jsonl", "data.train"]
    ),
    "a named file that is missing": Refused(
        {"train.csv": rows(*PLENTY), "dev_matched.csv": rows("yes")},
        {"validation": "dev_macthed.csv"},
        ["data.validation", "Did you mean 'dev_matched.csv'?"],
    ),
    "label among the texts": Refused(
        {"d.csv": rows(*PLENTY)}, {"text": "text", "label": "text"}, ["data.label", "column of its own"]
    ),
    "sizes over one": Refused(
        {"d.csv": rows(*PLENTY)}, {"test_size": 0.5, "validation_size": 0.5}, ["must be below 1"]
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_data_raises(case: str, prepare: Prepare) -> None:
    files, config, parts = REFUSED[case]
    with pytest.raises(DataError) as error:
        prepare(files, **config)
    for part in parts:
        assert part in str(error.value)


def test_missing_file_names_its_path_and_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(rows(*PLENTY))
    with pytest.raises(DataError) as error:
        get_task("text-classification").prepare(DataConfig(path=str(tmp_path / "review.csv")), 0)
    assert str(tmp_path / "review.csv") in str(error.value)
    assert "Did you mean 'reviews.csv'?" in str(error.value)


def test_relative_path_is_not_requested_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="there is no file or folder") as error:
        get_task("text-classification").prepare(DataConfig(path="data/reviews/train"), 0)
    assert str(tmp_path / "data/reviews/train") in str(error.value)


def test_unknown_name_reports_offline_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "banking77").mkdir()
    with pytest.raises(DataError, match="HF_HUB_OFFLINE") as error:
        get_task("text-classification").prepare(DataConfig(path="banking7"), 0)
    assert "Did you mean 'banking77'?" in str(error.value)
    assert str(tmp_path / "banking7") in str(error.value)


def test_unreadable_file_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d.csv").write_text(rows(*PLENTY))

    def denied(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(DataError, match=r"d\.csv: cannot be read: Permission denied"):
        get_task("text-classification").prepare(DataConfig(path=str(tmp_path / "d.csv")), 0)


def test_corrupt_parquet_file_raises(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_bytes(b"PAR1 is how it begins")
    with pytest.raises(DataError, match=r"d\.parquet: not a readable parquet file"):
        get_task("text-classification").prepare(DataConfig(path=str(tmp_path / "d.parquet")), 0)


def test_class_absent_from_validation_is_noted_with_a_remedy(prepare: Prepare) -> None:
    train = rows(*PLENTY, *["maybe"] * 5)
    data = prepare({"train.csv": train, "validation.csv": rows("yes", "no", start=90)})
    assert any("1 class absent from validation: maybe. For stratified splits" in note for note in data.notes)


def test_words_become_classes_in_sorted_order(prepare: Prepare) -> None:
    data = prepare({"d.csv": rows(*PLENTY)})
    assert data.label_names == ("no", "yes")
    assert get_task("text-classification").head_config(data) == {
        "num_labels": 2,
        "id2label": {0: "no", 1: "yes"},
        "label2id": {"no": 0, "yes": 1},
        "problem_type": "single_label_classification",
    }
    by_text = dict(zip(data.train["text"], data.train["label"], strict=True))
    assert all(label == 1 - int(text.split()[-1]) % 2 for text, label in by_text.items())


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([2, 10] * 20, ("2", "10")),
        (["3.0", "7.0"] * 20, ("3", "7")),
    ],
)
def test_ids_with_gaps_are_renumbered(labels: list[object], names: tuple[str, ...], prepare: Prepare) -> None:
    data = prepare({"d.csv": rows(*labels)})
    assert data.label_names == names
    assert set(data.train["label"]) == {0, 1}
    assert any(f"ids with gaps ({', '.join(names)}) renumbered" in note for note in data.notes)


def test_ids_without_gaps_are_kept(prepare: Prepare) -> None:
    data = prepare({"d.csv": rows(*[1, 0, 2] * 10)})
    assert data.label_names == ("0", "1", "2")
    assert not any("renumbered" in note for note in data.notes)
    assert all(
        label == (1, 0, 2)[int(text.split()[-1]) % 3] for text, label in zip(*data.train[:].values(), strict=True)
    )


def test_drop_empty_drops_empty_texts(prepare: Prepare) -> None:
    data = prepare({"d.csv": rows(*PLENTY) + " ,yes\n"}, drop_empty=True)
    assert sum(data.sizes.values()) == 40
    assert any("1 of 41 rows of d.csv dropped" in note for note in data.notes)


def test_duplicates_across_splits_are_dropped_and_counted(prepare: Prepare) -> None:
    files = {
        "train.csv": rows(*PLENTY) + "TEXT  Number 90,yes\ntext number 91,yes\ntext number 95,no\n",
        "validation.csv": rows("yes", "no", "yes", start=90),  # 90, 91, 92
        "test.csv": rows("yes", "no", "no", "no", start=92),  # 92 to 95
    }
    data = prepare(files)
    assert data.sizes == {"train": 40, "validation": 2, "test": 4}
    copies = "the same text, case and white space aside, is in"
    assert f"1 validation row dropped: {copies} test" in data.notes
    assert f"2 training rows dropped: {copies} validation" in data.notes
    assert f"1 training row dropped: {copies} test" in data.notes


def test_suggested_encoding_reads_the_file(prepare: Prepare) -> None:
    text = rows(*PLENTY).replace("text number 0", "café")
    data = prepare({"d.csv": text.encode("cp1252")}, encoding="cp1252")
    assert any("café" in rows["text"] for rows in data.splits.values())


def test_byte_order_mark_is_not_part_of_the_first_column(prepare: Prepare) -> None:
    data = prepare({"d.csv": rows(*PLENTY).encode("utf-8-sig")}, text="text")
    assert data.columns["text"] == "text"


@pytest.mark.parametrize(
    "pair", [("no", "yes"), ("off", "on"), ("01", "10"), ("False", "True"), ("1e5", "x"), ("NA", "US")]
)
def test_words_stay_words(pair: tuple[str, str], prepare: Prepare) -> None:
    assert prepare({"d.csv": rows(*pair * 20)}).label_names == pair


def test_booleans_are_classes(tmp_path: Path) -> None:
    table = pa.table({"text": [f"text {index}" for index in range(20)], "label": [True, False] * 10})
    pq.write_table(table, tmp_path / "d.parquet")
    data = get_task("text-classification").prepare(DataConfig(path=str(tmp_path / "d.parquet")), 0)
    assert data.label_names == ("False", "True")


def test_three_lines_report_what_is_used_and_what_is_not(tmp_path: Path) -> None:
    lines = [
        f'{{"id": {i}, "text": "{f"text {i}" if i < 30 else ""}", "label": "{"ab"[i % 2]}", "note": "x"}}'
        for i in range(40)
    ]
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    task = get_task("text-classification")
    data = task.prepare(DataConfig(path=str(tmp_path / "d.jsonl"), drop_empty=True), seed=0)
    assert data.summary[0] == "text-classification: text 'text', label 'label'; columns not used: id, note"
    assert data.summary[1].startswith("rows: ") and data.summary[1].endswith("; 10 dropped")
    assert data.summary[2] == "2 classes: a, b"
