"""Images and audio that a table names by file name or id: found below the table's folder or its parent."""

import os
import re
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
HINT = re.compile(r"image|img|photo|picture|file|audio|clip|wav|path", re.IGNORECASE)


def resolve_media(rows: Dataset, folder: Path) -> tuple[Dataset, list[str]]:
    """Return rows with the paths of media files that a column names, without a folder or an extension, and notes.

    A column is resolved where each of its first values is the name or the stem of an image or an audio file: below
    the table's folder, and names with their extension also below its parent.
    """
    for column in rows.column_names:
        kind = _kind_of_names(rows, column, folder)
        if kind is None:
            continue
        index = _index(folder)
        sample = _sample(rows, column)
        if kind == "names" and not all(_key(value) in index for value in sample):
            index = _index(folder.absolute().parent, 2)
        if index and all(_key(value) in index for value in sample):
            return _with_paths(rows, column, index)
    return rows, []


def _with_paths(rows: Dataset, column: str, index: dict[str, list[Path]]) -> tuple[Dataset, list[str]]:
    values = rows.data.table.column(column).to_pylist()
    paths = [_find(value, index, column, row) for row, value in enumerate(values, 1)]
    table = rows.data.table
    position = table.column_names.index(column)
    first = next(path for path in paths if path)
    notes = [f"column '{column}': its files were found by name, such as {first}"]
    table = table.set_column(position, column, pa.array(paths, pa.string()))
    others = [name for name in table.column_names if name != column]
    if re.fullmatch(r"column_\d+", column):  # no header
        names = {column: "file"}
        if PurePath(first).suffix.lower() in EXTENSIONS["audio"] and others:
            names[others[-1]] = "text"  # LJSpeech: id | transcript | normalized transcript
            notes.append(f"transcripts: the last column, '{others[-1]}'")
        table = table.rename_columns([names.get(name, name) for name in table.column_names])
    return Dataset(table), notes


def _sample(rows: Dataset, column: str) -> list[str]:
    return [value for value in rows.data.table.column(column)[: 5 * SAMPLE].to_pylist() if value][:SAMPLE]


def _kind_of_names(rows: Dataset, column: str, folder: Path) -> str | None:
    """Return whether the first values look like `names` of files that are not found as written, or like `stems`."""
    sample = _sample(rows, column) if holds_strings(rows, column) else []
    if not sample or any("\n" in value or len(value) > 300 or "://" in value for value in sample):
        return None
    if all(PurePath(value).suffix.lower() in MEDIA for value in sample):
        return None if (folder / Path(sample[0]).expanduser()).is_file() else "names"
    # Row numbers are no names of files, unless the column's name implies it.
    ids = all(" " not in value for value in sample) and len(set(sample)) == len(sample) > 1
    named = HINT.search(column) is not None
    return "stems" if ids and (named or not any(value.isdecimal() for value in sample)) else None


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
