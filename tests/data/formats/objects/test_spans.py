"""Annotated spans of every tool become words and tags."""

import json
from pathlib import Path
from typing import Any

import pytest

from hpo.data.formats.detect import read_content
from hpo.errors import DataError

TEXT = "Ann Lee likes NewYork, OK."
SPAN = {"start": 0, "end": 7}
TOOLS: dict[str, Any] = {
    "doccano labels": {"text": TEXT, "labels": [[0, 7, "PER"], [14, 17, "LOC"]]},
    "doccano label": {"text": TEXT, "label": [[14, 17, "LOC"], [0, 7, "PER"]], "id": 1},
    "doccano relations": {
        "text": TEXT,
        "entities": [
            {"id": 1, "label": "PER", "start_offset": 0, "end_offset": 7},
            {"id": 2, "label": "LOC", "start_offset": 14, "end_offset": 17},
        ],
        "relations": [],
    },
    "Prodigy": {
        "text": TEXT,
        "spans": [SPAN | {"label": "PER"}, {"start": 14, "end": 17, "label": "LOC"}],
        "answer": "accept",
    },
    "Label Studio, short": {
        "text": TEXT,
        "label": [SPAN | {"labels": ["PER"], "text": "Ann Lee"}, {"start": 14, "end": 17, "labels": ["LOC"]}],
    },
    "Label Studio": {
        "data": {"text": TEXT},
        "annotations": [
            {
                "result": [
                    {"from_name": "ner", "type": "labels", "value": SPAN | {"labels": ["PER"]}},
                    {"from_name": "ner", "type": "labels", "value": {"start": 14, "end": 17, "labels": ["LOC"]}},
                ]
            }
        ],
    },
    "spaCy": [TEXT, {"entities": [[0, 7, "PER"], [14, 17, "LOC"]]}],
    "flair": {
        "text": TEXT,
        "entities": [
            {"start_pos": 0, "end_pos": 7, "labels": [{"value": "PER", "confidence": 1.0}]},
            {"start_pos": 14, "end_pos": 17, "labels": [{"value": "LOC", "confidence": 1.0}]},
        ],
    },
}


@pytest.mark.parametrize("tool", TOOLS)
def test_spans_of_every_tool_are_words_and_tags(tool: str, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps([TOOLS[tool]] * 2))
    rows = read_content(tmp_path / "d.json").splits[""]
    assert rows["tokens"][0] == ["Ann", "Lee", "likes", "New", "York", ",", "OK", "."]
    assert rows["tags"][0] == ["B-PER", "I-PER", "O", "B-LOC", "O", "O", "O", "O"]


def test_overlapping_spans_are_counted_and_offsets_outside_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(json.dumps({"text": TEXT, "labels": [[0, 7, "PER"], [0, 3, "FIRST"]]}))
    assert "1 span dropped: inside a longer one" in str(read_content(tmp_path / "d.jsonl").notes)
    (tmp_path / "d.jsonl").write_text(json.dumps({"text": TEXT, "labels": [[0, 99, "PER"]]}))
    with pytest.raises(DataError, match=r"row 1: the span 0 to 99 \(PER\) is not inside its text of 26 characters"):
        read_content(tmp_path / "d.jsonl")
