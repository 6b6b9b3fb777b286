"""Folders of images or audio: one folder per class, optionally within one folder per split."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from hpo.data.media.files import EXTENSIONS
from hpo.errors import DataError


def read_class_folders(
    folder: Path, splits: Mapping[str, tuple[str, ...]], named: Mapping[str, str | None]
) -> dict[str, tuple[Dataset, Path]] | None:
    """Return split → its rows and its folder; None where `folder` has another structure.

    The rows have the path in the column `image` or `audio`, and the name of its folder in `label`. `splits` are the
    names that each split's folder may have, `named` those that the study sets. Raises `DataError`.
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
    return {split: (_read_rows(path, kind), path) for split, path in folders.items()}


def _class_folders(folder: Path) -> list[Path]:
    """Return the subfolders that contain media files: the classes."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and _media_files(path))


def _media_files(folder: Path, kinds: tuple[str, ...] = ("image", "audio")) -> list[Path]:
    wanted = frozenset().union(*(EXTENSIONS[kind] for kind in kinds))
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in wanted and not path.name.startswith("."))


def media_files(folder: Path, kind: str) -> list[Path]:
    """Return all files of a kind below `folder`, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in EXTENSIONS[kind])


def _detect_kind(folder: Path) -> str:
    counts = Counter(
        kind
        for subfolder in _class_folders(folder)
        for path in _media_files(subfolder)
        for kind, extensions in EXTENSIONS.items()
        if path.suffix.lower() in extensions
    )
    if len(counts) > 1:
        found = " and ".join(f"{number} {kind} files" for kind, number in counts.most_common())
        raise DataError(f"{folder.absolute()}: {found}: a data set contains images or audio, not both.")
    return counts.most_common(1)[0][0]


def _read_rows(folder: Path, kind: str) -> Dataset:
    paths = [path for subfolder in _class_folders(folder) for path in _media_files(subfolder, (kind,))]
    return Dataset.from_dict({kind: [str(path.absolute()) for path in paths], "label": [p.parent.name for p in paths]})
