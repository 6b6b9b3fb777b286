"""The data that a study names: a file, a folder of files, a folder of classes, or a hub dataset, with its splits."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from hpo.config.study import DataConfig
from hpo.data.formats.detect import SUFFIXES
from hpo.data.hub import load_hub
from hpo.data.local import load_file, load_folder, nearest_file
from hpo.data.splits.groups import group_splits
from hpo.data.splits.raw import RawSplits
from hpo.errors import DataError

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


_READ: ContextVar[dict[str, RawSplits] | None] = ContextVar("read", default=None)


@contextmanager
def read_once() -> Iterator[None]:
    """Within this context, a source that is opened again is not read again."""
    token = _READ.set({})
    try:
        yield
    finally:
        _READ.reset(token)


def load_splits(config: DataConfig, seed: int = 0) -> RawSplits:
    """Read the splits of `config.path`; with `config.group`, create the missing ones from complete groups of train.

    Raises `DataError` naming the file and line of a mistake, or the paths that were tried.
    """
    known = _READ.get()
    key = config.model_dump_json(exclude={"text", "label", "image", "audio", "group", "folds", "drop_empty"})
    raw = open_splits(config) if known is None or key not in known else known[key]
    if known is not None:
        known[key] = raw
    if config.folds is not None and raw.validation is not None:
        raise DataError(
            f"data.folds: {raw.origins['validation']} is a validation split already, and folds replace it: move its "
            "rows to the training data, or remove `folds`."
        )
    if config.group is None:
        return raw
    splits, notes = group_splits(raw.present(), raw.origins, config, seed)
    origins = {split: raw.origins.get(split, f"{raw.origins['train']} ({split})") for split in splits}
    return RawSplits(splits["train"], splits.get("validation"), splits.get("test"), origins, (*raw.notes, *notes))


def open_splits(config: DataConfig) -> RawSplits:
    """Return the splits at `config.path`. A path that exists is never looked up on the hub. Raises `DataError`."""
    path = Path(config.path).expanduser()
    try:
        if path.is_file():
            return load_file(config, path)
        if path.is_dir():
            return load_folder(config, path)
    except OSError as error:  # a folder without permission, a name that is too long
        raise DataError(f"data.path: {path.absolute()}: {error.strerror or error}.") from error
    if path.is_symlink() and not path.exists():
        raise DataError(f"data.path: {path.absolute()} is a link to {path.readlink()}, which does not exist.")
    if path.exists():
        raise DataError(
            f"data.path: {path.absolute()} is a pipe or a device, which can be read once only, and every worker reads "
            "the data: save it as a file."
        )
    if _spelled_as_path(config.path):
        raise DataError(f"data.path: there is no file or folder {path.absolute()}.{nearest_file(path)}")
    return load_hub(config)


def _spelled_as_path(name: str) -> bool:
    suffixes = {*SUFFIXES, ".txt", ".yml", ".yaml"}
    return name.startswith((".", "/", "~")) or Path(name).suffix.lower() in suffixes or not HUB_NAME.fullmatch(name)
