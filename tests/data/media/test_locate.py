"""Media files that a table names: by name in a subfolder or beside the folder, by stem, or not at all."""

from pathlib import Path

import pytest
from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.data.media.locate import resolve_media
from hpo.data.sources import load_splits
from hpo.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["1.png", "2.png"], True),  # in a folder below
        (["a\\1.png", "a\\2.png"], True),  # written on Windows
        (["cat_7", "cat_8"], True),  # without an extension
        (["9.jpg", "10.jpg"], True),  # in a folder beside the table's
        (["pos", "neg"], False),
        (["1", "2"], False),  # numbers of rows
    ],
)
def test_names_are_found_below_the_table_and_its_parent(values: list[str], found: bool, tmp_path: Path) -> None:
    touch(tmp_path, "set/images/1.png", "set/images/2.png", "set/deep/er/cat_7.png", "set/deep/cat_8.jpeg")
    touch(tmp_path, "photos/9.jpg", "photos/10.jpg")
    rows, notes = resolve_media(Dataset.from_dict({"x": values}), tmp_path / "set")
    assert all(Path(path).is_file() for path in rows["x"]) == found == bool(notes)
    assert found or rows["x"][:] == values


def test_two_files_of_one_name_raise_data_error_unless_the_folder_decides(tmp_path: Path) -> None:
    touch(tmp_path, "in/a/1.png", "in/b/1.png")
    rows, _ = resolve_media(Dataset.from_dict({"x": ["a/1.png"]}), tmp_path)
    assert rows["x"][:] == [str(tmp_path / "in/a/1.png")]
    with pytest.raises(DataError, match=r"column 'x', row 1: '1\.png' is .* or .*: write the path"):
        resolve_media(Dataset.from_dict({"x": ["1.png"]}), tmp_path)


def test_ljspeech_has_its_last_column_as_transcripts(tmp_path: Path) -> None:
    touch(tmp_path, "wavs/LJ-1.wav", "wavs/LJ-2.wav", "wavs/LJ-3.wav")
    lines = [f"LJ-{n}|Chapter {n}, by hand|chapter {n}, by hand" for n in (1, 2, 3)]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    rows = load_splits(DataConfig(path=str(tmp_path))).train
    assert rows["file"][:] == [str(tmp_path / f"wavs/LJ-{n}.wav") for n in (1, 2, 3)]
    assert rows["text"][0] == "chapter 1, by hand"
