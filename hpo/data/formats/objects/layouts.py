"""JSON in the layouts that users have: lines, lists, splits, columns, objects by id, and pandas' orients."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hpo.data.formats.headers import KNOWN, name_columns
from hpo.data.formats.objects.annotations import from_spacy, interpret, is_spacy
from hpo.data.formats.objects.rows import objects_to_rows
from hpo.data.formats.objects.squad import is_squad, squad_questions
from hpo.data.formats.sentences import group_sentences
from hpo.data.formats.source import Content, Format, SourceFile
from hpo.data.formats.split_names import split_of
from hpo.errors import DataError

LINES = frozenset({".jsonl", ".ndjson"})
ROWS = ("data", "rows", "examples", "instances", "records", "items", "common_examples")


def _recognizes(source: SourceFile) -> bool:
    if source.suffix in LINES or source.suffix == ".json":
        return True
    first = next((line.strip() for line in source.lines if line.strip()), "")
    return first in ("[", "{", "[{") or _parses(first)


def _parses(line: str) -> bool:
    if not line.startswith(("{", "[")):
        return False
    try:
        return isinstance(json.loads(line), dict | list)
    except (ValueError, RecursionError):
        return False


def _read(source: SourceFile) -> Content:
    filled = [line for line in source.lines if line.strip()][:2]
    several = len(filled) == 2 and filled[1].lstrip().startswith(("{", "["))
    whole = source.suffix not in LINES or (filled and filled[0].strip() in ("[", "{"))
    if not whole or (several and _parses(filled[0])):
        content = _from_rows(_lines(source), source)
    else:
        content = _from_value(_load(source), source)
    return group_sentences(Content(content.splits, (*source.notes, *content.notes)))


def _lines(source: SourceFile) -> Iterator[Any]:
    with source.open() as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _parse_row(line, f"{source.path}, line {number}")


def _parse_row(text: str, where: str) -> Any:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON: {error.msg} (column {error.colno}).") from None
    except RecursionError:
        raise DataError(f"{where}: JSON with too many nested brackets.") from None
    if not isinstance(row, dict | list):
        raise DataError(f'{where}: expected an object, such as {{"text": …, "label": …}}.')
    return row


def _load(source: SourceFile) -> Any:
    try:
        return json.loads(source.text)
    except json.JSONDecodeError as error:
        raise DataError(f"{source.path}, line {error.lineno}: not valid JSON: {error.msg}.") from None
    except RecursionError:
        raise DataError(f"{source.path}: JSON with too many nested brackets.") from None


def _from_value(found: Any, source: SourceFile) -> Content:
    """Return the rows of a parsed file, by split where it is an object with the splits as keys."""
    if isinstance(found, dict):
        if "annotations" in found and "images" in found:
            raise DataError(
                f"{source.path}: COCO annotations of objects in images: object detection is not a task of hpo. To "
                "classify images, give a table with the columns image and label."
            )
        if len(found) == 1 and isinstance(inner := next(iter(found.values())), dict) and _has_rows(inner):
            found = inner  # {"rasa_nlu_data": {"common_examples": […]}}
        named = {key: split_of(key, exact=True) for key, value in found.items() if isinstance(value, list | dict)}
        if "train" in named.values():
            return _from_splits(found, named, source)
        found = _rows_of_object(found, source)
    return _from_rows(found, source)


def _has_rows(inner: Mapping[str, Any]) -> bool:
    return any(isinstance(value, list) for value in inner.values())


def _from_splits(found: Mapping[str, Any], named: Mapping[str, str | None], source: SourceFile) -> Content:
    splits = {}
    for key, split in named.items():
        if split is not None:
            given = found[key]
            rows = _rows_of_object(given, source) if isinstance(given, dict) else given
            splits[key] = _from_rows(rows, source).splits[""]
    unused = [key for key in found if key not in splits]
    notes = (f"keys of {source.path.name} that are not used: {', '.join(unused)}",) if unused else ()
    return Content(splits, notes)


def _rows_of_object(found: dict[str, Any], source: SourceFile) -> Any:
    """Return the list of rows that an object stands for."""
    lists = {key: value for key, value in found.items() if isinstance(value, list)}
    if {"columns", "data"} <= set(lists) and all(isinstance(row, list) for row in lists["data"]):
        return [dict(zip(lists["columns"], row, strict=False)) for row in lists["data"]]
    if _are_columns(found):
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    if found and all(isinstance(value, dict) for value in found.values()):
        return _rows_by_key(found, source)
    rows = [value for value in lists.values() if value and all(isinstance(one, dict) or is_spacy(one) for one in value)]
    if len(lists) == 1:
        return next(iter(lists.values()))
    usual = [lists[name] for name in ROWS if name in lists]
    if len(rows) == 1 or len(usual) == 1:
        return rows[0] if len(rows) == 1 else usual[0]
    if len(rows) > 1:
        raise DataError(
            f"{source.path}: which key holds the rows? Keys with lists of objects: "
            f"{', '.join(key for key, value in lists.items() if value in rows)}. Keep one of them in the file."
        )
    return [found]


def _are_columns(found: Mapping[str, Any]) -> bool:
    """Return whether an object has several lists of values of one length, its columns, and nothing else."""
    lists = list(found.values())
    return (
        len(lists) > 1
        and all(isinstance(one, list) and len(one) == len(lists[0]) for one in lists)
        and not any(isinstance(value, dict) for one in lists for value in one)
    )


def _rows_by_key(found: Mapping[str, Mapping[str, Any]], source: SourceFile) -> list[Any]:
    """Return the rows of pandas' orient `columns` (column → index → value), else of objects by their id."""
    inner = list(found.values())
    indices = list(inner[0])
    if len(inner) > 1 and all(list(one) == indices for one in inner) and all(map(str.isdecimal, indices)):
        return [{name: column[index] for name, column in found.items()} for index in indices]
    source.notes.append(f"the {len(found)} keys of {source.path.name} are read as the ids of its rows, and not used")
    return inner


def _from_rows(rows: Any, source: SourceFile) -> Content:
    """Return rows of objects, lists, spaCy's pairs or texts."""
    if is_squad(rows):
        rows = squad_questions(rows)
    elif isinstance(rows, list) and rows and all(isinstance(row, str) for row in rows):
        rows = [{"text": row} for row in rows]
    return Content({"": objects_to_rows(source.path, interpret(_objects(rows, source), source))})


def _objects(rows: Any, source: SourceFile) -> Iterator[Mapping[str, Any]]:
    names: list[str] | None = None
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict):
            yield row
        elif is_spacy(row):
            yield from_spacy(row)
        elif isinstance(row, list) and len(row) > 1 and not any(isinstance(one, dict | list) for one in row):
            if names is None:
                names = _names(rows, row, source)
                if names == [str(one) for one in row]:
                    continue
            if len(row) != len(names):
                raise DataError(f"{source.path}, row {number}: {len(row)} values where the first has {len(names)}.")
            yield dict(zip(names, row, strict=True))
        elif row is not None:
            raise DataError(
                f'{source.path}, row {number}: expected a list of objects, such as [{{"text": …, "label": …}}, …].'
            )


def _names(rows: Any, first: list[Any], source: SourceFile) -> list[str]:
    """Return names for the values of rows that are lists: those of the first row, where it contains names."""
    if any(str(one).lower() in KNOWN for one in first):
        return [str(one) for one in first]
    sample = [row for row in rows[:500] if isinstance(row, list)] if isinstance(rows, list) else [first]
    names, shown = name_columns([[str(one) for one in row] for row in sample if len(row) == len(first)])
    note = f"lists without names: their columns are {shown}"
    if not any(other.startswith("lists without names") for other in source.notes):
        source.notes.append(note)
    return names


JSON = Format("JSON", frozenset({".json"}) | LINES, _recognizes, _read)
