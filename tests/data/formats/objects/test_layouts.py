"""JSON in the layouts that users have: each gives the same rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from hpo.data.formats.detect import read_content
from hpo.errors import DataError

ROWS = {"text": ["a red car", "no cars here", "two cars"], "label": ["yes", "no", "yes"]}
OBJECTS = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
PAIRS = [list(row.values()) for row in OBJECTS]
LAYOUTS: dict[str, Any] = {
    "records": OBJECTS,
    "columns of lists": ROWS,
    "pandas columns": {name: dict(enumerate(values)) for name, values in ROWS.items()},
    "pandas index": dict(enumerate(OBJECTS)),
    "pandas split": {"columns": list(ROWS), "index": [0, 1, 2], "data": PAIRS},
    "pandas table": {"schema": {"fields": [{"name": "text"}]}, "data": OBJECTS},
    "by id": {f"id{number}": row for number, row in enumerate(OBJECTS)},
    "lists with a header": [list(ROWS), *PAIRS],
    "lists without one": PAIRS,
    "nested in data": [{"data": {"text": row["text"]}, "label": row["label"]} for row in OBJECTS],
    "Label Studio choices": [
        {
            "data": {"text": row["text"]},
            "annotations": [
                {"result": [{"from_name": "label", "type": "choices", "value": {"choices": [row["label"]]}}]}
            ],
        }
        for row in OBJECTS
    ],
    "Prodigy choices": [
        {"text": row["text"], "options": [{"id": "yes"}], "accept": [row["label"]], "answer": "accept"}
        for row in OBJECTS
    ]
    + [{"text": "unclear", "options": [{"id": "yes"}], "accept": [], "answer": "ignore"}],
    "spaCy categories": [
        [row["text"], {"cats": {"yes": row["label"] == "yes", "no": row["label"] == "no"}}] for row in OBJECTS
    ],
}


@pytest.mark.parametrize("suffix", [".json", ".txt"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_rows(layout: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"d{suffix}"
    path.write_text(json.dumps(LAYOUTS[layout]))
    content = read_content(path)
    assert content.splits[""].to_dict() == ROWS
    assert ("1 row dropped: not accepted" in str(content.notes)) == (layout == "Prodigy choices")


def test_splits_in_one_file_are_its_splits_and_other_keys_are_named(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps({"train": PAIRS, "val": PAIRS, "oos_val": PAIRS}))
    content = read_content(tmp_path / "d.json")
    assert {split: rows.to_dict() for split, rows in content.splits.items()} == {"train": ROWS, "val": ROWS}
    assert "not used: oos_val" in str(content.notes)


def test_squad_is_one_row_for_each_question(tmp_path: Path) -> None:
    questions = [
        {"id": "1", "question": "Where?", "answers": [{"text": "Oslo", "answer_start": 8}]},
        {"id": "2", "question": "When?", "answers": [], "is_impossible": True},
    ]
    article = {"title": "T", "paragraphs": [{"context": "Ann, in Oslo", "qas": questions}]}
    (tmp_path / "d.json").write_text(json.dumps({"version": "v2.0", "data": [article]}))
    rows = read_content(tmp_path / "d.json").splits[""]
    assert rows["question"][:] == ["Where?", "When?"] and rows["context"][:] == ["Ann, in Oslo"] * 2
    assert rows["answers"][:] == [{"text": ["Oslo"], "answer_start": [8]}, {"text": [], "answer_start": []}]


def test_types_of_all_rows_count_not_those_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.data.formats.objects.rows.BATCH", 2)
    rows = [{"a": 1}, {"a": 2}, {"a": 0.5, "b": "x"}, {"a": None}, {"a": 3, "c": 1}, {"c": "1"}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    read = read_content(tmp_path / "d.jsonl").splits[""].to_dict()
    assert read["a"] == [1, 2, 0.5, None, 3, None] and read["b"] == [None, None, "x", None, None, None]
    assert read["c"][4:] == [{"type": "int", "json": "1"}, {"type": "str", "json": '"1"'}]


def test_object_detection_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text('{"images": [{"id": 0}], "annotations": [{"bbox": [0, 0, 1, 1]}]}')
    with pytest.raises(DataError, match="object detection is not a task"):
        read_content(tmp_path / "d.json")
