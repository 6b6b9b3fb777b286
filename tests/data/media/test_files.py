"""Media columns and items: found, resolved, and decoded once."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from hpo.data.media.files import Item, as_item, check_files, find_media_column, holds_media, item_array, read_items
from hpo.errors import DataError

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 8
WAV = b"RIFF\x00\x00\x00\x00WAVEfmt "


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["", "a.PNG"], "image"),
        (["a.wav"], "audio"),
        ([PNG], "image"),
        ([WAV], "audio"),
        ([{"bytes": None, "path": "b.flac"}], "audio"),
        ([{"bytes": PNG, "path": "b"}], "image"),
        (["a.txt"], None),
        ([1], None),
    ],
)
def test_media_are_detected_by_the_first_value(values: list[Any], kind: str | None) -> None:
    rows = Dataset.from_dict({"x": values})
    assert [name for name in ("image", "audio") if holds_media(rows, "x", name)] == ([kind] if kind else [])


def test_media_column_is_named_or_recognized() -> None:
    rows = Dataset.from_dict({"thumb": ["a.png"], "image": ["b.png"], "label": ["c"]})
    assert find_media_column(rows, "image", None, "d.csv") == "image"
    assert find_media_column(rows, "image", "thumb", "d.csv") == "thumb"
    with pytest.raises(DataError, match=r"data\.image: d\.csv, column 'label' contains neither paths"):
        find_media_column(rows, "image", "label", "d.csv")
    with pytest.raises(DataError, match=r"which column holds the audio\? Columns: thumb, image, label"):
        find_media_column(rows, "audio", None, "d.csv")


def test_relative_paths_are_resolved_against_the_first_folder_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.png").write_bytes(PNG)
    folders = [tmp_path, tmp_path / "b"]
    rows = Dataset.from_dict({"image": ["x.png"]})
    assert read_items(rows, "image", folders, "d.csv") == [{"path": str(tmp_path / "b" / "x.png"), "bytes": None}]
    assert item_array([as_item(PNG)]).to_pylist() == [{"bytes": PNG, "path": None}]
    for value, message in (("", "row 1: empty"), ("y.png", "row 1: there is no file")):
        with pytest.raises(DataError, match=message):
            read_items(Dataset.from_dict({"image": [value]}), "image", folders, "d.csv")


def test_valid_files_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))
    decoded: list[Item] = []

    def decode(item: Item) -> float:
        decoded.append(item)
        content = item["bytes"] if item["bytes"] is not None else Path(item["path"]).read_bytes()
        if b"corrupt" in content:
            raise ValueError("corrupt\nsecond line")
        return float(len(content))

    (tmp_path / "a").write_bytes(b"123")
    items = [as_item(str(tmp_path / "a")), as_item(b"12")]
    first = check_files(items, "d.csv", "index", "image", decode)
    assert first[1] == [3.0, 2.0] and check_files(items, "d.csv", "index", "image", decode) == first
    assert len(decoded) == 2
    (tmp_path / "a").write_bytes(b"corrupt")
    with pytest.raises(DataError, match=r"1 of 2 image files cannot be read: row 1: .*a \(corrupt\)\. Remove"):
        check_files(items, "d.csv", "index", "image", decode)
