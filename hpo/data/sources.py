"""The data that a study names: a file, a folder of files, a folder of classes, or a hub dataset, with its splits."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from datasets import Dataset, concatenate_datasets, load_dataset

from hpo.config.study import DataConfig
from hpo.data.media.class_folders import read_class_folders
from hpo.data.readers import READERS, read_file
from hpo.data.splits.groups import group_splits
from hpo.data.splits.raw import RawSplits
from hpo.errors import DataError, did_you_mean

SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}

SHARD = re.compile(r"-\d{5}-of-\d{5}$")  # how the hub names the shards of a split
METADATA_FILES = ("dataset_info.json", "dataset_dict.json", "state.json")  # that `save_to_disk` writes besides rows
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load_splits(config: DataConfig, seed: int = 0) -> RawSplits:
    """Read the splits of `config.path`; with `config.group`, create the missing ones from complete groups of train.

    Raises `DataError` naming the file and line of a mistake, or the paths that were tried.
    """
    raw = open_splits(config)
    if config.folds is not None and raw.validation is not None:
        raise DataError(
            f"data.folds: {raw.origins['validation']} is a validation split already, and folds replace it: move its "
            "rows to the training data, or remove `folds`."
        )
    if config.group is None:
        return raw
    splits, notes = group_splits(raw.present(), raw.origins, config, seed)
    origins = {split: raw.origins.get(split, f"{raw.origins['train']} ({split})") for split in splits}
    return RawSplits(splits["train"], splits.get("validation"), splits.get("test"), origins, tuple(notes))


def open_splits(config: DataConfig) -> RawSplits:
    """Return the splits at `config.path`. A path that exists is never looked up on the hub. Raises `DataError`."""
    path = Path(config.path).expanduser()
    try:
        if path.is_file():
            return _load_files(config, path.parent, {"train": [path]})
        if path.is_dir():
            named = {split: getattr(config, split) for split in SPLITS}
            folders = None if _named_splits(path) else read_class_folders(path, SPLITS, named)
            return _from_class_folders(folders) if folders else _load_files(config, path, _recognize_files(path))
    except OSError as error:  # a folder without permission, a name that is too long
        raise DataError(f"data.path: {path.absolute()}: {error.strerror or error}.") from error
    if _spelled_as_path(config.path):
        raise DataError(f"data.path: there is no file or folder {path.absolute()}.{_nearest_file(path)}")
    return _load_hub(config)


def _from_class_folders(folders: Mapping[str, tuple[Dataset, Path]]) -> RawSplits:
    rows = {split: read for split, (read, _) in folders.items()}
    origins = {split: f"{folder.name}/" for split, (_, folder) in folders.items()}
    return RawSplits(rows["train"], rows.get("validation"), rows.get("test"), origins)


def _load_files(config: DataConfig, folder: Path, recognized: dict[str, list[Path]]) -> RawSplits:
    """Read the recognized files; those that the study names as `data.train` and so on replace them."""
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
    if "train" not in files:
        raise DataError(
            f"{folder.absolute()}: no training data: a folder needs a file such as train.csv (allowed: "
            f"{', '.join(READERS)}), or `data.train` naming one. Found: {_listed(folder)}."
        )
    read = {split: _read_parts(paths, config.encoding) for split, paths in files.items()}
    return RawSplits(
        read["train"],
        read.get("validation"),
        read.get("test"),
        {split: paths[0].name if len(paths) == 1 else f"{paths[0].parent}/" for split, paths in files.items()},
    )


def _read_parts(paths: list[Path], encoding: str) -> Dataset:
    parts = [read_file(path, encoding) for path in paths]
    first = parts[0]
    for path, part in zip(paths, parts, strict=True):
        if part.column_names != first.column_names:
            raise DataError(
                f"{path}: its columns ({', '.join(part.column_names)}) differ from those of {paths[0].name} "
                f"({', '.join(first.column_names)}): all files of a split need the same columns."
            )
    try:
        return first if len(parts) == 1 else concatenate_datasets(parts)
    except ValueError as error:
        raise DataError(f"{paths[0].parent}/: the files of one split differ in type: {_first_line(error)}") from None


def _recognize_files(folder: Path) -> dict[str, list[Path]]:
    """Return split → files: by file name, by subfolder, in `data/` as on the hub, or the folder's only file."""
    only = _data_files(folder)
    return _named_splits(folder) or ({"train": only} if len(only) == 1 or _are_shards(only) else {})


def _are_shards(files: list[Path]) -> bool:
    """Return whether the files are the shards of one dataset, as `Dataset.save_to_disk` and the hub name them."""
    return bool(files) and all(SHARD.search(path.stem) for path in files) and len({_stem(path) for path in files}) == 1


def _stem(path: Path) -> str:
    return SHARD.sub("", path.stem)


def _named_splits(folder: Path) -> dict[str, list[Path]]:
    for parent in (folder, folder / "data"):
        found = {split: files for split, names in SPLITS.items() if (files := _split_files(parent, split, names))}
        if found:
            return found
    return {}


def _split_files(folder: Path, split: str, names: tuple[str, ...]) -> list[Path]:
    named = [path for path in _data_files(folder) if _stem(path).lower() in names]
    if len(named) > 1 and not all(SHARD.search(path.stem) for path in named):
        raise DataError(
            f"{folder.absolute()}: {' and '.join(path.name for path in named)} both look like the {split} split: "
            f"name one as `data.{split}`."
        )
    return named or [path for name in names for path in _data_files(folder / name)]


def _data_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = [path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in READERS]
    return sorted(path for path in files if path.name not in METADATA_FILES)


def _named_file(folder: Path, name: str, key: str) -> list[Path]:
    """Return the file, or the files of the folder, that a study names: by path, or by stem within the data's folder."""
    path = folder / Path(name).expanduser()
    if path.is_file():
        return [path]
    parts = _data_files(path) or [file for file in _data_files(folder) if _stem(file) == name]
    if not parts:
        raise DataError(f"{key}: there is no file {path.absolute()}.{_nearest_file(path)}")
    if len(parts) > 1 and not path.is_dir() and not all(SHARD.search(part.stem) for part in parts):
        raise DataError(f"{key}: '{name}' is {' or '.join(part.name for part in parts)}: write the full name.")
    return parts


def _spelled_as_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or Path(name).suffix.lower() in READERS or not HUB_NAME.fullmatch(name)


def _nearest_file(path: Path) -> str:
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
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") or "nothing"


def _load_hub(config: DataConfig) -> RawSplits:
    """Download a hub dataset, or read it from the cache."""
    from huggingface_hub import constants

    where = f"data.path: '{config.path}' is not a file or folder here ({Path(config.path).absolute()})"
    nearest = _nearest_file(Path(config.path))
    if not constants.HF_HUB_OFFLINE:
        _check_on_hub(config, where, nearest)
    try:
        found = load_dataset(config.path, name=config.name, revision=config.revision)
    except Exception as error:  # the reader of any dataset may raise anything
        offline = " The hub is disabled (HF_HUB_OFFLINE=1)." if constants.HF_HUB_OFFLINE else ""
        raise DataError(f"{where}, nor a hub dataset in the cache: {_first_line(error)}{offline}{nearest}") from error
    chosen = {split: _hub_split(config, split, list(found)) for split in SPLITS}
    if chosen["train"] is None:
        raise DataError(
            f"{config.path}: the hub dataset has no split 'train' ({', '.join(found)}): name one as `data.train`."
        )
    used = {split: name for split, name in chosen.items() if name is not None}
    rows = {split: found[name] for split, name in used.items()}
    origins = {split: f"{config.path}[{name}]" for split, name in used.items()}
    return RawSplits(rows["train"], rows.get("validation"), rows.get("test"), origins)


def _check_on_hub(config: DataConfig, where: str, nearest: str) -> None:
    """Request the dataset's metadata with a timeout of 5 s: a typo or an unreachable hub fails fast."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        HfApi().dataset_info(config.path, revision=config.revision, timeout=5)
    except RepositoryNotFoundError:
        raise DataError(
            f"{where}, and the Hugging Face hub has no dataset of that name that you can access: a private or gated "
            f"one needs `hf auth login`.{nearest}"
        ) from None
    except HfHubHTTPError as error:
        raise DataError(f"{where}, and the Hugging Face hub responds: {_first_line(error)}{nearest}") from error
    except Exception as error:  # the hub's client also raises the exceptions of its HTTP library
        raise DataError(
            f"{where}, and the Hugging Face hub is unreachable: {_first_line(error)}{nearest} With "
            "HF_HUB_OFFLINE=1 a dataset downloaded before is used."
        ) from error


def _hub_split(config: DataConfig, split: str, known: Iterable[str]) -> str | None:
    named: str | None = getattr(config, split)
    known = list(known)
    if named is not None and named not in known:
        raise DataError(
            f"data.{split}: {config.path} has no split '{named}'.{did_you_mean(named, known)} Splits: "
            f"{', '.join(known)}."
        )
    return named or next((name for name in SPLITS[split] if name in known), None)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".") + "."
