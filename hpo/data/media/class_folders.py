"""Folders of images or sound: a folder for each class, in a folder for each split or not."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from hpo.data.media.files import EXTENSIONS
from hpo.errors import DataError


def read_class_folders(
    folder: Path, splits: Mapping[str, tuple[str, ...]], named: Mapping[str, str | None]
) -> dict[str, tuple[Dataset, Path]] | None:
    """split → its rows (the column `image` or `audio` with paths, and `label` with the folders' names) and its folder.

    None where `folder` is not laid out so. `splits` are the names that each split's folder may have, `named` those
    that the study gives. Raises `DataError`.
    """
    places = {}
    for split, names in splits.items():
        given = named.get(split)
        found = [folder / name for name in ((given,) if given else names) if _class_folders(folder / name)]
        if found:
            places[split] = found[0]
    if not places and not any(named.values()) and len(_class_folders(folder)) > 1:
        places = {"train": folder}
    if "train" not in places:
        return None
    kind = _kind(places["train"])
    return {split: (_rows(place, kind), place) for split, place in places.items()}


def _class_folders(folder: Path) -> list[Path]:
    """The sub-folders that hold files of a kind: classes."""
    if not folder.is_dir():
        return []
    return sorted(place for place in folder.iterdir() if place.is_dir() and _media_files(place))


def _media_files(folder: Path, kinds: tuple[str, ...] = ("image", "audio")) -> list[Path]:
    wanted = frozenset().union(*(EXTENSIONS[kind] for kind in kinds))
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in wanted and not path.name.startswith("."))


def media_files(folder: Path, kind: str) -> list[Path]:
    """All files of a kind below `folder`, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in EXTENSIONS[kind])


def _kind(folder: Path) -> str:
    counts = Counter(
        kind
        for place in _class_folders(folder)
        for path in _media_files(place)
        for kind, extensions in EXTENSIONS.items()
        if path.suffix.lower() in extensions
    )
    if len(counts) > 1:
        found = " and ".join(f"{number} {kind} files" for kind, number in counts.most_common())
        raise DataError(f"{folder.absolute()}: {found}: a data set holds images or sound, not both.")
    return counts.most_common(1)[0][0]


def _rows(folder: Path, kind: str) -> Dataset:
    paths = [path for place in _class_folders(folder) for path in _media_files(place, (kind,))]
    return Dataset.from_dict({kind: [str(path.absolute()) for path in paths], "label": [p.parent.name for p in paths]})
