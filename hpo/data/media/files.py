"""Image and audio files as rows: in class folders, as paths in a table's column, or as bytes in it.

Every file is decoded once per machine, so that a corrupt one is reported before training; an index in the cache stores
size, time and digest of those that were valid.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pyarrow as pa
from datasets import Dataset

from hpo.core.format import count
from hpo.core.paths import home
from hpo.data.columns import column_values, holds_strings, missing_column
from hpo.errors import DataError, did_you_mean, enumerated

Item = Mapping[str, Any]  # {"bytes": …, "path": …}; one of them may be None

EXTENSIONS: dict[str, frozenset[str]] = {
    "image": frozenset(".jpg .jpeg .png .webp .bmp .gif .tif .tiff .ppm .pgm".split()),
    "audio": frozenset(".wav .flac .mp3 .ogg .oga .opus .aiff .aif .au".split()),
}
NAMES = {
    "image": ("image", "img", "image_path", "image_file", "photo", "picture", "file_name", "filename", "path", "file"),
    "audio": ("audio", "audio_path", "audio_file", "speech", "sound", "wav", "file_name", "filename", "path", "file"),
}
SIGNATURES = {
    "image": (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF....WEBP", b"II*\0", b"MM\0*"),
    "audio": (b"RIFF....WAVE", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"FORM"),
}
FORMAT = 2  # of the index: increase it when what `decode` measures changes
STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


class _Checked(NamedTuple):
    """An item's name in the index, its SHA-256, what `decode` measured, and the error if it cannot be decoded."""

    name: str
    digest: str
    measure: float
    error: str = ""


def find_media_column(rows: Dataset, kind: str, named: str | None, origin: str) -> str:
    """Return the column of images or audio: the named one, else one with a known name, else the only one.

    Raises `DataError` listing the columns.
    """
    known = rows.column_names
    if named is not None:
        if named not in known:
            raise missing_column(f"data.{kind}", named, known, origin)
        if not holds_media(rows, named, kind):
            raise DataError(
                f"data.{kind}: {origin}, column '{named}' contains neither paths of {kind} files "
                f"({', '.join(sorted(EXTENSIONS[kind]))}) nor their bytes."
            )
        return named
    found = [name for name in known if holds_media(rows, name, kind)]
    spelled = {name.lower(): name for name in found}
    by_name = next((spelled[name] for name in NAMES[kind] if name in spelled), None)
    if by_name is not None or len(found) == 1:
        return by_name or found[0]
    what = "images" if kind == "image" else "audio"
    raise DataError(
        f"{origin}: which column holds the {what}? Columns: {enumerated(known)}. Name the one with their paths or "
        f"bytes in `data.{kind}`, or use a folder with a folder of files for each class."
    )


def holds_media(rows: Dataset, column: str, kind: str) -> bool:
    """Return whether a column contains images or audio (`kind`): a hub feature, bytes, or paths, by its first value."""
    feature = rows.features[column]
    if isinstance(feature, datasets.Image | datasets.Audio):
        return isinstance(feature, datasets.Image) == (kind == "image")
    path, content = _first_value(rows, column)
    if content is None:
        return Path(path or "").suffix.lower() in EXTENSIONS[kind]
    return any(_starts_with(content[:12], signature) for signature in SIGNATURES[kind])


def _first_value(rows: Dataset, column: str) -> tuple[str | None, bytes | None]:
    """Return the path or bytes of a column's first value, of strings the first of 100 that is not empty."""
    values = rows.data.table.column(column)
    kind = values.type
    if len(values) == 0:
        return None, None
    if holds_strings(rows, column):
        return next((text for text in values[:100].to_pylist() if text), None), None
    if pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}:
        first = values[0].as_py() or {"bytes": None, "path": None}
        return first["path"], first["bytes"]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return None, values[0].as_py()
    return None, None


def _starts_with(content: bytes, signature: bytes) -> bool:
    """Return whether bytes start with a signature, in which `.` stands for any byte."""
    return len(content) >= len(signature) and all(
        expected in (byte, ord(".")) for byte, expected in zip(content, signature, strict=False)
    )


def read_items(rows: Dataset, column: str, folders: Sequence[Path], origin: str) -> list[Item]:
    """Return the column's items; a relative path is resolved against the first of `folders` that contains the file.

    Raises `DataError` with the row of an item that is empty or whose file does not exist.
    """
    values: list[Any] = rows.data.table.column(column).to_pylist()
    items: list[Item] = []
    for row, value in enumerate(values, 1):
        item = value if isinstance(value, dict) else {"path": value, "bytes": None}
        if isinstance(value, bytes):
            item = {"path": None, "bytes": value}
        if item["bytes"] is None:
            if not item["path"]:
                raise DataError(f"{origin}, column '{column}', row {row}: empty. Remove the row, or add its file.")
            item = {"path": str(locate(item["path"], folders, f"{origin}, row {row}")), "bytes": None}
        items.append(item)
    return items


def locate(name: str, folders: Sequence[Path], where: str) -> Path:
    """Return the file `name` in the first of `folders` that contains it. Raises `DataError`."""
    for folder in folders:
        path = folder / Path(name).expanduser()
        if path.is_file():
            return path
    path = (folders[0] / name).absolute()
    near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
    raise DataError(f"{where}: there is no file {path}.{near}")


def item_array(items: Iterable[Item]) -> pa.Array:
    """Return items as an Arrow array."""
    return pa.array(
        [{"bytes": item["bytes"], "path": None if item["bytes"] is not None else item["path"]} for item in items],
        STRUCT,
    )


def as_item(given: Any) -> Item:
    """Return the item of an input to predict: a path, a file's bytes, or an item. Raises `DataError`."""
    if isinstance(given, Mapping):
        return given
    if isinstance(given, bytes):
        return {"bytes": given, "path": None}
    return {"bytes": None, "path": str(locate(str(given), [Path()], "to predict"))}


def open_item(item: Item) -> Any:
    """Open an item as a binary file; the caller closes it."""
    return Path(item["path"]).open("rb") if item["bytes"] is None else io.BytesIO(item["bytes"])


def check_files(
    items: Sequence[Item], origin: str, index: str, kind: str, decode: Callable[[Item], float]
) -> tuple[list[str], list[float]]:
    """Return the SHA-256 of each item, and what `decode` measures of it. Raises `DataError` naming the corrupt ones.

    A file whose size and time are those in the index `index` is not read again.
    """
    path = home() / "cache" / "media" / f"{hashlib.sha256(f'{kind} {FORMAT} {index}'.encode()).hexdigest()[:24]}.json"
    known = _read_index(path)
    with ThreadPoolExecutor() as threads:
        checked = list(threads.map(lambda item: _check(item, known, decode), items))
    corrupt = [(row, item.error) for row, item in enumerate(checked, 1) if item.error]
    if corrupt:
        shown = "; ".join(f"row {row}: {reason}" for row, reason in corrupt[:5])
        more = f"; and {len(corrupt) - 5} more" if len(corrupt) > 5 else ""
        raise DataError(
            f"{origin}: {len(corrupt)} of {count(len(items), kind + ' file')} cannot be read: {shown}{more}. Remove "
            "them, or replace them with valid ones."
        )
    valid = {item.name: (item.digest, item.measure) for item in checked}
    if valid != known:
        _write_index(path, valid)
    return [item.digest for item in checked], [item.measure for item in checked]


def _check(item: Item, known: Mapping[str, tuple[str, float]], decode: Callable[[Item], float]) -> _Checked:
    """Decode an item, unless the index has it."""
    if item["bytes"] is None:
        status = Path(item["path"]).stat()
        name = f"{item['path']} {status.st_size} {status.st_mtime_ns}"
        if name in known:
            return _Checked(name, *known[name])
        digest = hashlib.sha256(Path(item["path"]).read_bytes()).hexdigest()
    else:
        digest = name = hashlib.sha256(item["bytes"]).hexdigest()
        if name in known:
            return _Checked(name, *known[name])
    try:
        return _Checked(name, digest, decode(item))
    except DataError:  # a package is missing
        raise
    except Exception as error:  # a decoder may raise anything for corrupt input
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return _Checked(name, digest, 0.0, f"{item['path'] or 'the bytes in the table'} ({reason})")


def _read_index(path: Path) -> dict[str, tuple[str, float]]:
    try:
        return {name: (digest, measure) for name, (digest, measure) in json.loads(path.read_text()).items()}
    except (OSError, ValueError):
        return {}


def _write_index(path: Path, index: Mapping[str, tuple[str, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(index))
    scratch.rename(path)


def media_values(rows: Dataset, kind: str) -> list[Item]:
    """Return the items of prepared rows, not decoded, unlike those of a hub feature."""
    return column_values(rows, kind)
