"""Folders of images, audio or texts: one folder per class, optionally within one folder per split."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset

from hpo.data.formats.source import decode
from hpo.data.formats.split_names import split_of
from hpo.data.media.files import EXTENSIONS
from hpo.errors import DataError

FILES = {**EXTENSIONS, "text": frozenset({".txt", ".text"})}
UNLABELED = ("unsup", "unlabeled", "unlabelled")  # folders beside those of the classes


class ClassFolders(NamedTuple):
    """The rows of each split with its folder, and notes."""

    splits: dict[str, tuple[Dataset, Path]]
    notes: tuple[str, ...]


def read_class_folders(
    folder: Path, splits: Mapping[str, tuple[str, ...]], named: Mapping[str, str | None], encoding: str = "utf-8"
) -> ClassFolders | None:
    """Return the rows of each split; None where `folder` has another structure.

    The rows have the path in the column `image` or `audio`, or the content in `text`, and the name of its folder in
    `label`. `splits` are the names that each split's folder may have, `named` those that the study sets. Raises
    `DataError`.
    """
    folders = {}
    for split, names in splits.items():
        given = named.get(split)
        found = [folder / name for name in ((given,) if given else names) if _class_folders(folder / name)]
        if found:
            folders[split] = found[0]
    if not folders and not any(named.values()) and len(_class_folders(folder)) > 1:
        folders = {"train": folder}
    if "train" not in folders:
        return None
    kind = _detect_kind(folders["train"])
    notes = [note for path in folders.values() for note in _left_out(path, kind)]
    return ClassFolders(
        {split: (_read_rows(path, kind, encoding), path) for split, path in folders.items()}, tuple(notes)
    )


def _left_out(folder: Path, kind: str) -> list[str]:
    """Return notes on what is in a split's folder and not used."""
    subfolders = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    unlabeled = [path.name for path in subfolders if path.name.lower() in UNLABELED]
    others = sum(
        path.is_file() and path.suffix.lower() not in FILES[kind]
        for subfolder in _class_folders(folder)
        for path in subfolder.iterdir()
        if not path.name.startswith(".")
    )
    notes = [f"{folder.name}/{name}/ is not used: its name says that it has no labels" for name in unlabeled]
    return notes + ([f"{others} files in the class folders of {folder.name}/ are not {kind} files"] if others else [])


def _class_folders(folder: Path) -> list[Path]:
    """Return the subfolders that contain media files: the classes."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and path.name.lower() not in UNLABELED and split_of(path.name, exact=True) is None
        if _media_files(path)
    )


def _media_files(folder: Path, kinds: tuple[str, ...] = tuple(FILES)) -> list[Path]:
    wanted = frozenset().union(*(FILES[kind] for kind in kinds))
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in wanted and not path.name.startswith("."))


def media_files(folder: Path, kind: str) -> list[Path]:
    """Return all files of a kind below `folder`, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in EXTENSIONS[kind])


def _detect_kind(folder: Path) -> str:
    counts = Counter(
        kind
        for subfolder in _class_folders(folder)
        for path in _media_files(subfolder)
        for kind, extensions in FILES.items()
        if path.suffix.lower() in extensions
    )
    if counts["image"] or counts["audio"]:
        del counts["text"]  # a description beside the files of a class
    if len(counts) > 1:
        found = " and ".join(f"{number} {kind} files" for kind, number in counts.most_common())
        raise DataError(f"{folder.absolute()}: {found}: a data set contains images or audio, not both.")
    return counts.most_common(1)[0][0]


def _read_rows(folder: Path, kind: str, encoding: str) -> Dataset:
    paths = [path for subfolder in _class_folders(folder) for path in _media_files(subfolder, (kind,))]
    labels = [path.parent.name for path in paths]
    if kind != "text":
        return Dataset.from_dict({kind: [str(path.absolute()) for path in paths], "label": labels})
    texts = ["" if path.stat().st_size == 0 else decode(path, encoding).strip() for path in paths]
    return Dataset.from_dict({"text": texts, "label": labels})
