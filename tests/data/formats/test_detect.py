"""Readers: every format gives the same rows, and every error names the file, the line and what to do."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpo.data.formats.detect import read_file
from hpo.data.formats.objects.rows import MIXED
from hpo.errors import DataError

ROWS = {"text": ["one, two", 'she said "no"', "three\nfour"], "label": ["a", "b", "a"]}
CSV = 'text,label\n"one, two",a\n"she said ""no""",b\n"three\nfour",a\n'
OBJECTS = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
FORMATS = {
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


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FORMATS[name].encode())
    assert read_file(tmp_path / name).to_dict() == ROWS


def test_pandas_category_is_decoded(tmp_path: Path) -> None:
    table = pa.table({"text": ROWS["text"], "label": pa.array(ROWS["label"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "d.parquet")
    assert read_file(tmp_path / "d.parquet").to_dict() == ROWS


def test_tsv_without_quoting_keeps_its_quotes(tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text('text\tlabel\n"Good" she said\ta\nI said "so\tb\n"no\ta\n')
    assert read_file(tmp_path / "d.tsv")["text"][:] == ['"Good" she said', 'I said "so', '"no']


def test_csv_field_may_exceed_the_default_limit(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(f"text,label\n{'word ' * 40_000},a\n")
    assert len(read_file(tmp_path / "d.csv")["text"][0]) == 200_000


def test_unnamed_csv_column_gets_a_name(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(",text,label\n0,hello,a\n")
    assert read_file(tmp_path / "d.csv").column_names == ["column_1", "text", "label"]


def test_json_column_of_several_types_is_mixed(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"label": 1}\n{"label": "1"}\n{"label": null}')
    rows = read_file(tmp_path / "d.jsonl")
    assert rows.data.table.schema.field("label").type == MIXED
    assert rows["label"][:] == [{"type": "int", "json": "1"}, {"type": "str", "json": '"1"'}, None]


def test_conll_has_words_and_the_last_column_as_tags(tmp_path: Path) -> None:
    lines = "-DOCSTART- -X- O\n\n# sent_id = 1\nNew NNP B-LOC\nYork NNP I-LOC\n\n\nI PRP O\n"
    (tmp_path / "d.conll").write_text(lines)
    rows = read_file(tmp_path / "d.conll").to_dict()
    assert rows == {"tokens": [["New", "York"], ["I"]], "tags": [["B-LOC", "I-LOC"], ["O"]]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.bin", b"\x89\0\1", r"d\.bin, line 1: not utf-8"),
        ("d.csv", b"\n\n", r"d\.csv: the file is empty"),
        ("d.csv", b"text,label\n", "no rows below it"),
        ("d.csv", b"text,label,text\na,b,c\n", "line 1: .*'text' twice"),
        ("d.csv", b'text,label\n"two\nlines",a\nx,y,b\n', r"line 4: 3 fields where the header has 2 .*double quotes"),
        ("d.csv", "text,label\ncaf\xe9,a\n".encode("cp1252"), "line 2: .*byte 15 .* 0xe9.*data.encoding: cp1252"),
        ("d.jsonl", b'{"text": "a"}\n{"text": ', r"d\.jsonl, line 2: not valid JSON"),
        ("d.jsonl", b"[1]", r"d\.jsonl, row 1: expected a list of objects"),
        ("d.json", b'{"text": 1', "line 1: not valid JSON"),
        ("d.json", b"[1, 2]", "expected a list of objects"),
        ("d.jsonl", b'{"text": "\\ud83d"}', "column 'text': .*lone surrogate"),
        ("d.conll", b"New B-LOC\nYork\n", "line 2: 1 columns where 2 are expected"),
        ("d.parquet", b"PAR1", "not a readable parquet file"),
        ("d.feather", b"ARROW", "not a readable Arrow file"),
    ],
)
def test_malformed_file_raises_data_error(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_file(tmp_path / name)
