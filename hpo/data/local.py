"""Files and folders on this disk as splits: which file is which split, and which are left aside."""

import re
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset, concatenate_datasets

from hpo.config.study import DataConfig
from hpo.data.formats.detect import NAMES, SUFFIXES, read_content
from hpo.data.formats.parallel import parallel_files, read_parallel
from hpo.data.formats.source import Content
from hpo.data.formats.split_names import SPLITS, split_of
from hpo.data.media.class_folders import read_class_folders
from hpo.data.media.locate import resolve_media
from hpo.data.splits.raw import RawSplits
from hpo.errors import DataError, did_you_mean, enumerated

SHARD = re.compile(r"-\d{5}-of-\d{5}$")  # how the hub names the shards of a split
METADATA_FILES = ("dataset_info.json", "dataset_dict.json", "state.json")  # that `save_to_disk` writes besides rows
# Read where a folder has no file with one of the formats' own suffixes; a study file may stand beside its data.
PLAIN = frozenset(
    {".txt", ".yml", ".yaml", ".data", ".dat", ".ft", ".psv", *(f".{n}" for s in SPLITS.values() for n in s)}
)
ABOUT = re.compile(r"(readme|licen[cs]e|changelog|notes|requirements|classes|labels|vocab)\b", re.IGNORECASE)

Files = dict[str, list[Path]]


def load_file(config: DataConfig, path: Path) -> RawSplits:
    """Return the splits of a file: its own, where it contains several, else it is train."""
    files = _with_named({"train": [path]}, config, path.parent)
    if files.get("train") != [path]:
        return _read_splits(config, files, [])
    content = read_content(path, config.encoding, config.header)
    if set(content.splits) == {""}:
        return _read_splits(config, files, _siblings(path), {path: content})
    splits, origins = {}, {}
    for key, rows in content.splits.items():
        split = split_of(key)
        if split is not None and split not in splits:
            splits[split], _ = resolve_media(rows, path.parent)
            origins[split] = f"{path.name}[{key}]"
    return RawSplits(splits["train"], splits.get("validation"), splits.get("test"), origins, content.notes)


def load_folder(config: DataConfig, folder: Path) -> RawSplits:
    """Return the splits of a folder: files named after splits, folders of classes, parallel texts, or its only file."""
    _refuse_detection(folder)
    named = {split: getattr(config, split) for split in SPLITS}
    strong = _named_splits(folder, SUFFIXES)
    if "train" not in strong:
        folders = read_class_folders(folder, SPLITS, named, config.encoding)
        if folders is not None:
            rows = {split: read for split, (read, _) in folders.splits.items()}
            origins = {split: f"{path.name}/" for split, (_, path) in folders.splits.items()}
            return RawSplits(rows["train"], rows.get("validation"), rows.get("test"), origins, folders.notes)
        parallel = parallel_files(folder)
        if parallel and not any(named.values()):
            rows, notes = read_parallel(parallel, config.encoding)
            origins = {split: " and ".join(path.name for path in pair) for split, pair in parallel.items()}
            return RawSplits(rows["train"], rows.get("validation"), rows.get("test"), origins, tuple(notes))
    found = _recognize_files(folder)
    files = _with_named(found, config, folder)
    if "train" not in files:
        raise DataError(
            f"{folder.absolute()}: no training data: a folder needs a file such as train.csv (allowed: "
            f"{NAMES}), or `data.train` naming one. Found: {_listed(folder)}."
        )
    used = {path for paths in files.values() for path in paths}
    return _read_splits(config, files, [path for path in _data_files(folder) if path not in used])


def _with_named(recognized: Files, config: DataConfig, folder: Path) -> Files:
    """Return the recognized files with those that the study names as `data.train` and so on instead."""
    files = dict(recognized)
    for split in SPLITS:
        named = getattr(config, split)
        if named is not None:
            files[split] = _named_file(folder, named, f"data.{split}")
    # A file that the study names for one split is not used for another.
    for split, paths in recognized.items():
        if getattr(config, split) is None and any(
            paths == files[other] and getattr(config, other) is not None for other in files if other != split
        ):
            del files[split]
    return files


def _read_splits(
    config: DataConfig, files: Files, aside: list[Path], already: Mapping[Path, Content] | None = None
) -> RawSplits:
    read, notes = {}, []
    for split, paths in files.items():
        rows, said = _read_parts(paths, config, already or {})
        read[split], found = resolve_media(rows, paths[0].parent)
        notes += [note for note in (*said, *found) if note not in notes]
    if "train" not in read:
        raise DataError("data.train: no file is left for training: name one.")
    if aside:
        shown = enumerated((path.name for path in aside), most=8)
        notes.append(f"files that are not used: {shown}; `data.validation` and `data.test` name files")
    origins = {split: paths[0].name if len(paths) == 1 else f"{paths[0].parent}/" for split, paths in files.items()}
    return RawSplits(read["train"], read.get("validation"), read.get("test"), origins, tuple(notes))


def _read_parts(paths: list[Path], config: DataConfig, already: Mapping[Path, Content]) -> tuple[Dataset, list[str]]:
    contents = [already.get(path) or read_content(path, config.encoding, config.header) for path in paths]
    parts, notes = [], [note for content in contents for note in content.notes]
    for path, content in zip(paths, contents, strict=True):
        if len(content.splits) > 1:
            raise DataError(f"{path}: contains the splits {', '.join(content.splits)}: give it alone as `data.path`.")
        parts.append(next(iter(content.splits.values())))
    first = parts[0]
    for path, part in zip(paths, parts, strict=True):
        if part.column_names != first.column_names:
            raise DataError(
                f"{path}: its columns ({enumerated(part.column_names)}) differ from those of {paths[0].name} "
                f"({enumerated(first.column_names)}): all files of a split need the same columns."
            )
    try:
        return (first if len(parts) == 1 else concatenate_datasets(parts)), notes
    except ValueError as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise DataError(f"{paths[0].parent}/: the files of one split differ in type: {reason}.") from None


def _recognize_files(folder: Path) -> Files:
    """Return split → files: by file name, by subfolder, in `data/` as on the hub, or the folder's only file."""
    found = _named_splits(folder, SUFFIXES)
    if "train" not in found:
        found = _named_splits(folder, SUFFIXES | PLAIN)
    only = _data_files(folder)
    if "train" not in found and (len(only) == 1 or _are_shards(only)):
        return {"train": only}
    return found


def _are_shards(files: list[Path]) -> bool:
    """Return whether the files are the shards of one dataset, as `Dataset.save_to_disk` and the hub name them."""
    return bool(files) and all(SHARD.search(path.stem) for path in files) and len({_stem(path) for path in files}) == 1


def _stem(path: Path) -> str:
    return SHARD.sub("", path.stem)


def _named_splits(folder: Path, suffixes: frozenset[str]) -> Files:
    """Return the files that have the names of splits, in the folder or its `data/`; else those that contain them."""
    for exact in (True, False):
        for parent in (folder, folder / "data"):
            found = {split: files for split in SPLITS if (files := _split_files(parent, split, suffixes, exact))}
            if "train" in found:
                return found
    return {}


def _split_files(folder: Path, split: str, suffixes: frozenset[str], exact: bool) -> list[Path]:
    """Return the files named after a split (or, unless `exact`, with it in their names), or those in its folder."""
    files = _data_files(folder, suffixes)
    named = [path for path in files if split_of(_stem(path) if exact else path.name, exact) == split]
    if len(named) > 1 and not all(SHARD.search(path.stem) for path in named):
        raise DataError(
            f"{folder.absolute()}: {' and '.join(path.name for path in named)} both look like the {split} split: "
            f"name one as `data.{split}`."
        )
    return named or [path for name in SPLITS[split] for path in _data_files(folder / name, suffixes)]


def _data_files(folder: Path, suffixes: frozenset[str] | None = None) -> list[Path]:
    """Return the folder's data files; without `suffixes` those of the formats' own, or else those of plain text."""
    if suffixes is None:
        return _data_files(folder, SUFFIXES) or _data_files(folder, SUFFIXES | PLAIN)
    if not folder.is_dir():
        return []
    files = [path for path in folder.iterdir() if path.is_file() and _is_data(path, suffixes)]
    return sorted(path for path in files if path.name not in METADATA_FILES)


def _is_data(path: Path, suffixes: frozenset[str]) -> bool:
    suffix = path.suffix.lower()
    if suffix in suffixes:
        return not path.name.startswith((".", "~$")) and (suffix in SUFFIXES or not ABOUT.match(path.name))
    return ".txt" in suffixes and not suffix and split_of(path.name, exact=True) is not None


def _siblings(path: Path) -> list[Path]:
    """Return the files beside a file of one split that look like its other splits."""
    if split_of(path.name) != "train":
        return []
    files = _data_files(path.parent, frozenset({path.suffix.lower()}))
    return [other for other in files if other != path and split_of(other.name) in ("validation", "test")]


def _named_file(folder: Path, name: str, key: str) -> list[Path]:
    """Return the file, or the files of the folder, that a study names: by path, or by stem within the data's folder."""
    path = folder / Path(name).expanduser()
    if path.is_file():
        return [path]
    parts = _data_files(path) or [file for file in _data_files(folder) if _stem(file) == name]
    if not parts:
        raise DataError(f"{key}: there is no file {path.absolute()}.{nearest_file(path)}")
    if len(parts) > 1 and not path.is_dir() and not all(SHARD.search(part.stem) for part in parts):
        raise DataError(f"{key}: '{name}' is {' or '.join(part.name for part in parts)}: write the full name.")
    return parts


def _refuse_detection(folder: Path) -> None:
    """Raise `DataError` for a folder of Pascal VOC annotations."""
    annotations = next((path for path in (folder / "Annotations", folder / "annotations") if path.is_dir()), None)
    first = next(annotations.glob("*.xml"), None) if annotations else None
    if first is not None and b"<object>" in first.read_bytes():
        raise DataError(
            f"{annotations}: Pascal VOC annotations of objects in images: object detection is not a task of hpo. To "
            "classify images, give a table with the columns image and label, or a folder for each class."
        )


def nearest_file(path: Path) -> str:
    """Return a hint with the nearest name in the closest existing parent folder of a missing path."""
    path = path.absolute()
    folder = next(parent for parent in path.parents if parent.is_dir())
    missing = path.relative_to(folder).parts[0]
    names = [entry.name for entry in folder.iterdir()]
    hint = did_you_mean(missing, names)
    if folder != path.parent and not hint:
        return f" The folder {folder} exists, but contains no '{missing}'."
    return hint


def _listed(folder: Path) -> str:
    return enumerated(sorted(entry.name for entry in folder.iterdir()), most=10) or "nothing"
