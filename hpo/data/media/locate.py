"""Images and audio that a table names by file name or id: found below the table's folder or its parent."""

import os
from collections import defaultdict
from pathlib import Path, PurePath

import pyarrow as pa
from datasets import Dataset

from hpo.data.columns import holds_strings
from hpo.data.media.files import EXTENSIONS
from hpo.errors import DataError

MEDIA = frozenset().union(*EXTENSIONS.values())
DEPTH = 4  # folders below the table's that are searched
MOST = 2_000_000  # entries that are looked at
SAMPLE = 20


def resolve_media(rows: Dataset, folder: Path) -> Dataset:
    """Return rows with the paths of media files that their columns name, without a folder or without an extension.

    A column is resolved where each of its first values is the name or the stem of an image or an audio file.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    for column in rows.column_names:
        if not holds_strings(rows, column) or not _names_files(rows, column, folder):
            continue
        if not found:
            found = {"files": _index(folder) or _index(folder.absolute().parent, 2)}
        index = found["files"]
        values = rows.data.table.column(column).to_pylist()
        sample = [value for value in values if value][:SAMPLE]
        if index and all(_key(value) in index for value in sample):
            paths = [_find(value, index, column, row) for row, value in enumerate(values, 1)]
            table = rows.data.table
            position = table.column_names.index(column)
            rows = Dataset(table.set_column(position, column, pa.array(paths, pa.string())))
    return rows


def _names_files(rows: Dataset, column: str, folder: Path) -> bool:
    """Return whether the first values look like names of files that are not found as they are written."""
    values = rows.data.table.column(column)[: 5 * SAMPLE].to_pylist()
    sample = [value for value in values if value][:SAMPLE]
    if not sample or any("\n" in value or len(value) > 300 for value in sample):
        return False
    if all(Path(value).suffix.lower() in MEDIA for value in sample):
        return not (folder / Path(sample[0]).expanduser()).is_file()
    ids = all(value.strip() and " " not in value and "://" not in value for value in sample)
    return ids and len(set(sample)) == len(sample) and len(sample) > 1


def _index(folder: Path, depth: int = DEPTH) -> dict[str, list[Path]]:
    """Return the media files below a folder by name and by stem, in lower case."""
    index: dict[str, list[Path]] = defaultdict(list)
    pending, seen = [(str(folder), 0)], 0
    while pending and seen < MOST:
        current, level = pending.pop()
        try:
            entries = list(os.scandir(current))
        except OSError:
            continue
        seen += len(entries)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=level == 0):
                if level < depth:
                    pending.append((entry.path, level + 1))
            elif PurePath(entry.name).suffix.lower() in MEDIA:
                path = Path(entry.path)
                index[path.name.lower()].append(path)
                index[path.stem.lower()].append(path)
    return dict(index)


def _key(value: str) -> str:
    return value.replace("\\", "/").rstrip("/").rpartition("/")[2].strip().lower()


def _find(value: str | None, index: dict[str, list[Path]], column: str, row: int) -> str | None:
    """Return the path of the file that a value names; the value itself where there is none, which is reported later."""
    if not value:
        return value
    found = index.get(_key(value), [])
    if len(found) > 1:
        parts = Path(value.replace("\\", "/")).with_suffix("").parts
        found = [path for path in found if path.with_suffix("").parts[-len(parts) :] == parts] or found
    if len(found) > 1:
        raise DataError(
            f"column '{column}', row {row}: '{value}' is {found[0]} or {found[1]}: write the path from the table's "
            "folder."
        )
    return str(found[0].absolute()) if found else value
