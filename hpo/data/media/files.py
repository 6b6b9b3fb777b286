"""Images and sound as rows: in folders of classes, or named by a table's column of paths, or held in it as bytes.

Every file is read and decoded once a machine, so that a broken one is told before anything is trained; an index beside
the caches remembers size, time and digest of those that were sound.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets import Dataset

from hpo.core.format import count
from hpo.core.paths import home
from hpo.data.columns import column_values, holds_strings, missing_column
from hpo.errors import DataError, did_you_mean

Item = Mapping[str, Any]  # {"bytes": …, "path": …}: one of them may be None

EXTENSIONS: dict[str, frozenset[str]] = {
    "image": frozenset(".jpg .jpeg .png .webp .bmp .gif .tif .tiff .ppm .pgm".split()),
    "audio": frozenset(".wav .flac .mp3 .ogg .oga .opus .aiff .aif .au".split()),
}
NAMES = {
    "image": ("image", "img", "image_path", "image_file", "photo", "picture", "file_name", "filename", "path", "file"),
    "audio": ("audio", "audio_path", "audio_file", "speech", "sound", "wav", "file_name", "filename", "path", "file"),
}
SIGNS = {
    "image": (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF....WEBP", b"II*\0", b"MM\0*"),
    "audio": (b"RIFF....WAVE", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"FORM"),
}
STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def find_media_column(rows: Dataset, kind: str, named: str | None, origin: str) -> str:
    """The column of images or sound: the named one, else one so called that holds them, else the only one that does.

    Raises `DataError` listing the columns there are.
    """
    known = rows.column_names
    if named is not None:
        if named not in known:
            raise missing_column(f"data.{kind}", named, known, origin)
        if not holds_media(rows, named, kind):
            raise DataError(
                f"data.{kind}: {origin}, column '{named}' holds neither {kind} files' paths "
                f"({', '.join(sorted(EXTENSIONS[kind]))}) nor their bytes."
            )
        return named
    holding = [name for name in known if holds_media(rows, name, kind)]
    spelled = {name.lower(): name for name in holding}
    by_name = next((spelled[name] for name in NAMES[kind] if name in spelled), None)
    if by_name is not None or len(holding) == 1:
        return by_name or holding[0]
    raise DataError(
        f"{origin}: which column holds the {kind}s? Columns: {', '.join(known)}. Name the one with their paths or "
        f"bytes in `data.{kind}`, or give a folder with a folder of files for each class."
    )


def holds_media(rows: Dataset, column: str, kind: str) -> bool:
    """Whether a column holds images or sound (`kind`): a feature of the hub, bytes, or paths, by its first value."""
    feature = rows.features[column]
    if isinstance(feature, datasets.Image | datasets.Audio):
        return isinstance(feature, datasets.Image) == (kind == "image")
    values = rows.data.table.column(column)
    arrow = values.type
    if holds_strings(rows, column):
        first = next((text for text in values[:100].to_pylist() if text), "")
        return Path(first).suffix.lower() in EXTENSIONS[kind]
    if pa.types.is_struct(arrow) and {"bytes", "path"} <= {field.name for field in arrow}:
        first = next((one for one in values[:1].to_pylist() if one), {"bytes": None, "path": None})
    elif pa.types.is_binary(arrow) or pa.types.is_large_binary(arrow):
        first = {"bytes": values[0].as_py(), "path": None}
    else:
        return False
    if first["bytes"] is None:
        return Path(first["path"] or "").suffix.lower() in EXTENSIONS[kind]
    begin = bytes(first["bytes"][:12])
    return any(_begins(begin, sign) for sign in SIGNS[kind])


def _begins(begin: bytes, sign: bytes) -> bool:
    return len(begin) >= len(sign) and all(s in (b, ord(".")) for b, s in zip(begin, sign, strict=False))


def read_items(rows: Dataset, column: str, folders: Sequence[Path], origin: str) -> list[Item]:
    """The column's entries; relative paths start at the first of `folders` where there is such a file.

    Raises `DataError` with the row of an entry that is empty or a file that is not there.
    """
    values: list[Any] = rows.data.table.column(column).to_pylist()
    items: list[Item] = []
    for row, value in enumerate(values, 1):
        item = value if isinstance(value, dict) else {"path": value, "bytes": None}
        if isinstance(value, bytes):
            item = {"path": None, "bytes": value}
        if item["bytes"] is None:
            if not item["path"]:
                raise DataError(f"{origin}, column '{column}', row {row}: empty. Take the row out, or name its file.")
            item = {"path": str(locate(item["path"], folders, f"{origin}, row {row}")), "bytes": None}
        items.append(item)
    return items


def locate(name: str, folders: Sequence[Path], where: str) -> Path:
    """The file called `name` in the first of `folders` that has it. Raises `DataError`."""
    for folder in folders:
        path = folder / Path(name).expanduser()
        if path.is_file():
            return path
    path = (folders[0] / name).absolute()
    near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
    raise DataError(f"{where}: there is no file {path}.{near}")


def item_array(items: Iterable[Item]) -> pa.Array:
    """Items as an Arrow column."""
    return pa.array(
        [{"bytes": item["bytes"], "path": None if item["bytes"] is not None else item["path"]} for item in items],
        STRUCT,
    )


def as_item(given: Any) -> Item:
    """What a person gives to predict for: a path, a file's bytes, or an item as it is."""
    if isinstance(given, Mapping):
        return given
    if isinstance(given, bytes):
        return {"bytes": given, "path": None}
    return {"bytes": None, "path": str(locate(str(given), [Path()], "to predict"))}


def open_item(item: Item) -> Any:
    """The item as an open file: to be closed, as what `open` returns."""
    return Path(item["path"]).open("rb") if item["bytes"] is None else io.BytesIO(item["bytes"])


def check_files(
    items: Sequence[Item], origin: str, index: str, kind: str, decode: Callable[[Item], float]
) -> tuple[list[str], list[float]]:
    """The SHA-256 of each item, and what `decode` measured of it. Raises `DataError` naming those it cannot read.

    A file whose size and time are as they were when it was found sound is not read again: the index called so knows.
    """
    place = home() / "cache" / "media" / f"{hashlib.sha256(f'{kind} {index}'.encode()).hexdigest()[:24]}.json"
    known = _read_index(place)

    def check(item: Item) -> tuple[str, str, float, str]:
        """The item's name in the index, its digest, its measure, and why it is broken."""
        if item["bytes"] is None:
            status = Path(item["path"]).stat()
            name = f"{item['path']} {status.st_size} {status.st_mtime_ns}"
            if name in known:
                return name, *known[name], ""
            digest = hashlib.sha256(Path(item["path"]).read_bytes()).hexdigest()
        else:
            digest = name = hashlib.sha256(item["bytes"]).hexdigest()
            if name in known:
                return name, *known[name], ""
        try:
            return name, digest, decode(item), ""
        except DataError:  # a package that is missing
            raise
        except Exception as error:  # a decoder raises what it likes at broken input
            reason = str(error) or type(error).__name__
            return name, digest, 0.0, f"{item['path'] or 'the bytes in the table'} ({reason.splitlines()[0]})"

    with ThreadPoolExecutor() as threads:
        found = list(threads.map(check, items))
    broken = [(row, reason) for row, (*_, reason) in enumerate(found, 1) if reason]
    if broken:
        shown = "; ".join(f"row {row}: {reason}" for row, reason in broken[:5])
        more = f"; and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise DataError(
            f"{origin}: {len(broken)} of {count(len(items), kind + ' file')} cannot be read: {shown}{more}. Take "
            "them out, or put sound copies in their place."
        )
    sound = {name: (digest, measure) for name, digest, measure, _ in found}
    if sound != known:
        _write_index(place, sound)
    return [digest for _, digest, _, _ in found], [measure for _, _, measure, _ in found]


def _read_index(place: Path) -> dict[str, tuple[str, float]]:
    try:
        return {name: (digest, measure) for name, (digest, measure) in json.loads(place.read_text()).items()}
    except (OSError, ValueError):
        return {}


def _write_index(place: Path, index: Mapping[str, tuple[str, float]]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = place.with_name(f"{place.name}.{os.getpid()}")
    scratch.write_text(json.dumps(index))
    scratch.rename(place)


def media_values(rows: Dataset, kind: str) -> list[Item]:
    """The items of prepared rows, of which a hub's feature would decode each."""
    return column_values(rows, kind)
