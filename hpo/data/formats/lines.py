"""Text files with one example per line: fastText's `__label__`, and lines without a structure."""

import pyarrow as pa
from datasets import Dataset

from hpo.data.formats.source import Content, Format, SourceFile
from hpo.errors import DataError

PREFIX = "__label__"


def _is_fasttext(source: SourceFile) -> bool:
    lines = [line for line in source.lines if line.strip()][:100]
    return bool(lines) and sum(line.lstrip().startswith(PREFIX) for line in lines) >= 0.9 * len(lines)


def _read_fasttext(source: SourceFile) -> Content:
    """Read the labels before each text; a column of lists where a line has several."""
    texts: list[str] = []
    labels: list[list[str]] = []
    for number, line in enumerate(source.text.splitlines(), 1):
        if not line.strip():
            continue
        words = line.split()
        given = next((index for index, word in enumerate(words) if not word.startswith(PREFIX)), len(words))
        if given == 0:
            raise DataError(f"{source.path}, line {number}: no {PREFIX}… before the text, as the other lines have.")
        labels.append([word.removeprefix(PREFIX) for word in words[:given]])
        texts.append(line.split(None, given)[given].strip() if given < len(words) else "")
    several = any(len(row) > 1 for row in labels)
    column = pa.array(labels, pa.list_(pa.string())) if several else pa.array([row[0] for row in labels])
    return Content({"": Dataset(pa.table({"text": pa.array(texts), "label": column}))})


def _read_lines(source: SourceFile) -> Content:
    lines = [line for line in source.text.splitlines() if line.strip()]
    return Content({"": Dataset(pa.table({"text": pa.array(lines, pa.string())}))})


FASTTEXT = Format("fastText", frozenset(), _is_fasttext, _read_fasttext)
LINES = Format("lines of text", frozenset({".txt"}), lambda source: bool(source.lines), _read_lines)
