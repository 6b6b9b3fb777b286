"""CoNLL: one word per line, with its tag in the last column, and an empty line after each text."""

import re
from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from hpo.data.formats.source import Content, Format, SourceFile
from hpo.errors import DataError

SUFFIXES = frozenset({".conll", ".iob", ".iob2", ".bio", ".bio2", ".bioes", ".bilou", ".conllu", ".ner"})
WORDS = ("token", "tokens", "word", "words", "text", "form")
TAG = re.compile(r"O|[BIESLUMW]-\S+")


def _recognizes(source: SourceFile) -> bool:
    """Return whether the lines are words with tags of entities, or equally wide blocks with few different tags."""
    if source.suffix in SUFFIXES:
        return True
    if source.lines and source.lines[0].startswith("-DOCSTART-"):
        return True
    rows = [_fields(line) for line in source.lines if line.strip() and not _is_comment(line)]
    rows = rows[1:] if rows and _is_header(rows[0]) else rows
    widths = {len(row) for row in rows}
    if len(rows) < 3 or len(widths) != 1 or not 2 <= (width := widths.pop()) <= 14:
        return False
    tags = [row[-1] for row in rows]
    if _are_tags(tags) or _are_tags([row[0] for row in rows]):
        return True
    blocks = sum(not line.strip() for line in source.lines[:-1])
    few = len(set(tags)) <= min(100, len(tags) // 5)
    words = all(" " not in row[0] for row in rows)
    return width <= 10 and blocks >= 2 and blocks * 3 <= len(rows) and few and words


def _are_tags(values: list[str]) -> bool:
    """Return whether nearly all values are tags of entities."""
    tags = sum(TAG.fullmatch(value) is not None for value in values)
    return tags > 0 and tags >= 0.95 * len(values) and any(value != "O" for value in values)


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.split("\t")] if "\t" in line else line.split()


def _is_header(fields: list[str]) -> bool:
    return fields[0].lower() in WORDS and not TAG.fullmatch(fields[-1]) and fields[-1].isidentifier()


def _is_comment(line: str) -> bool:
    return line.startswith("# ")


def _read(source: SourceFile) -> Content:
    texts: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    rows: list[list[str]] = []
    path, width = source.path, 0
    for number, line in enumerate(source.text.split("\n"), 1):
        fields = _fields(line)
        if not line.strip() or fields[0].startswith("-DOCSTART-"):
            texts.append([])
            tags.append([])
            continue
        if _is_comment(line) and len(fields) != width:
            continue
        if not width and _is_header(fields):
            width = len(fields)
            continue
        width = width or len(fields)
        if len(fields) != width or width < 2:
            raise DataError(
                f"{path}, line {number}: {len(fields)} columns where {max(width, 2)} are expected: a word, and its "
                "tag in the last column, separated by white space."
            )
        rows.append(fields)
        texts[-1].append(fields[0])
        tags[-1].append(fields[-1])
    _check_order(source.path, rows)
    columns = {"tokens": list(filter(None, texts)), "tags": list(filter(None, tags))}
    table = pa.table({name: pa.array(rows, pa.list_(pa.string())) for name, rows in columns.items()})
    notes = (f"columns 2 to {width - 1} of {path.name} are not used: words are the first, tags the last",)
    return Content({"": Dataset(table)}, notes if width > 2 else ())


def _check_order(path: Path, rows: list[list[str]]) -> None:
    """Raise `DataError` where another column than the last holds the tags."""
    if not rows or _are_tags([row[-1] for row in rows]):
        return
    tags = next((index for index in range(len(rows[0]) - 1) if _are_tags([row[index] for row in rows])), None)
    if tags is not None:
        raise DataError(
            f"{path}: the tags ({rows[0][tags]}, …) are in column {tags + 1} of {len(rows[0])}, but words are expected "
            "in the first column and tags in the last. Reorder the columns, such as with "
            f'`awk \'{{print (NF ? ${len(rows[0]) if tags == 0 else 1}"\\t"${tags + 1} : "")}}\' {path.name}`.'
        )


CONLL = Format("CoNLL", SUFFIXES, _recognizes, _read)
