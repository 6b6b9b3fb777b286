"""Class folders: one folder per class, with or without one per split."""

from pathlib import Path

import pytest

from hpo.data.formats.split_names import SPLITS
from hpo.data.media.class_folders import media_files, read_class_folders
from hpo.errors import DataError

UNNAMED = dict.fromkeys(SPLITS)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_folders_of_splits_and_classes(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.png", "train/dog/2.PNG", "dev/cat/3.png", "train/dog/.hidden.png", "train/dog/notes")
    found = read_class_folders(tmp_path, SPLITS, UNNAMED)
    assert found is not None and set(found.splits) == {"train", "validation"}
    rows, folder = found.splits["train"]
    assert folder == tmp_path / "train" and rows["label"][:] == ["cat", "dog"]
    assert rows["image"][:] == [str(tmp_path / "train/cat/1.png"), str(tmp_path / "train/dog/2.PNG")]


def test_folders_of_classes_alone_are_train(tmp_path: Path) -> None:
    touch(tmp_path, "yes/1.wav", "no/2.flac")
    found = read_class_folders(tmp_path, SPLITS, UNNAMED)
    assert found is not None and found.splits["train"][0].column_names == ["audio", "label"]
    assert [path.name for path in media_files(tmp_path, "audio")] == ["2.flac", "1.wav"]


def test_other_structures_are_not_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "texts/a.csv", "one/1.png")
    assert read_class_folders(tmp_path, SPLITS, UNNAMED) is None


def test_images_and_audio_together_raise_data_error(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/2.wav")
    with pytest.raises(DataError, match=r"1 image files and 1 audio files: .*not both"):
        read_class_folders(tmp_path, SPLITS, UNNAMED)
