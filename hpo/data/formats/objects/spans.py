"""Annotated spans (character offsets in a text) as words with tags: B-… at a span's start, I-… inside, O outside."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpo.core.format import count
from hpo.errors import DataError

WORD = re.compile(r"\w+|[^\w\s]")  # as predictions split a text
TEXTS = ("text", "content", "sentence", "document", "body", "raw_text")
SPANS = ("labels", "label", "entities", "spans", "ner", "annotations", "annotation", "entity", "tags")
STARTS = ("start", "start_offset", "start_pos", "begin", "start_char", "from", "offset_start")
ENDS = ("end", "end_offset", "end_pos", "stop", "end_char", "to", "offset_end")
KINDS = ("label", "labels", "type", "entity", "entity_type", "entity_group", "tag", "class", "category", "value")

Span = tuple[int, int, str]


@dataclass
class Spans:
    """Converts rows with spans in the column `spans` of the text `text`; counts what it leaves out."""

    text: str
    spans: str
    where: str
    counts: Counter[str] = field(default_factory=Counter)

    def convert(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield each row with the columns `tokens` and `tags` instead. Raises `DataError` naming an invalid row."""
        for number, row in enumerate(rows, 1):
            text = row.get(self.text)
            if not isinstance(text, str):
                raise DataError(f"{self.where}, row {number}: no text under '{self.text}' for its spans.")
            found = row.get(self.spans) or []
            spans = [as_span(one) for one in found] if isinstance(found, list) else [None]
            if None in spans:
                raise DataError(
                    f"{self.where}, row {number}: '{self.spans}' is not a list of spans: each has a start, an end "
                    'and a label, such as [0, 5, "PER"].'
                )
            tokens, tags = self._tag(text, [span for span in spans if span is not None], number)
            others = {
                name: value
                for name, value in row.items()
                if name not in (self.text, self.spans, "tokens", "tags") and isinstance(value, str | int | float)
            }
            yield {"tokens": tokens, "tags": tags, **others}

    def _tag(self, text: str, spans: Sequence[Span], number: int) -> tuple[list[str], list[str]]:
        kept: list[Span] = []
        for start, end, kind in sorted(spans, key=lambda span: (span[0] - span[1], span[0])):
            if not 0 <= start < end <= len(text):
                raise DataError(
                    f"{self.where}, row {number}: the span {start} to {end} ({kind}) is not inside its text of "
                    f"{count(len(text), 'character')}."
                )
            if any(start < other_end and other < end for other, other_end, _ in kept):
                self.counts["overlapping"] += 1
            elif text[start:end].strip():
                kept.append((start, end, kind))
        edges = sorted({edge for start, end, _ in kept for edge in (start, end)})
        tokens, tags = [], []
        begun: set[Span] = set()
        for start, end in _split(text, edges):
            span = next((one for one in kept if one[0] <= start and end <= one[1]), None)
            tokens.append(text[start:end])
            tags.append("O" if span is None else f"{'I' if span in begun else 'B'}-{span[2]}")
            if span is not None:
                begun.add(span)
        return tokens, tags

    def notes(self) -> list[str]:
        """Return how the rows were read, and the number of spans that were left out."""
        read = [f"spans in '{self.spans}' of '{self.text}' are read as words with tags B-… and I-…"]
        overlapping = self.counts["overlapping"]
        return read + ([f"{count(overlapping, 'span')} dropped: inside a longer one"] if overlapping else [])


def _split(text: str, edges: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the words of a text, also divided where a span starts or ends inside of one."""
    position = 0
    for match in WORD.finditer(text):
        start, end = match.span()
        while position < len(edges) and edges[position] <= start:
            position += 1
        while position < len(edges) and edges[position] < end:
            yield start, edges[position]
            start = edges[position]
            position += 1
        yield start, end


def as_span(value: Any) -> Span | None:
    """Return a span of any annotation tool's spelling: [start, end, label] or an object; None for anything else."""
    if isinstance(value, list | tuple):
        valid = len(value) == 3 and _is_offset(value[0]) and _is_offset(value[1]) and isinstance(value[2], str)
        return (value[0], value[1], value[2]) if valid else None
    if not isinstance(value, Mapping):
        return None
    start, end = (next((value[name] for name in names if name in value), None) for names in (STARTS, ENDS))
    kind = next((found for name in KINDS if (found := _kind(value.get(name)))), None)
    if not _is_offset(start) or not _is_offset(end) or kind is None:
        return None
    assert start is not None and end is not None
    return start, end, kind


def _is_offset(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: Any) -> str | None:
    """Return a label, or the first of a list of labels or of objects with the label as `value`."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, Mapping):
        value = value.get("value") or value.get("label")
    return value if isinstance(value, str) and value else None


def find_spans(rows: Sequence[Mapping[str, Any]], where: str) -> Spans | None:
    """Return how to convert rows of which a column contains spans; None where there is none."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in sorted(names, key=lambda one: SPANS.index(one) if one in SPANS else len(SPANS)):
        lists = [row[name] for row in rows if row.get(name)]
        if lists and all(isinstance(value, list) and all(as_span(one) for one in value) for value in lists):
            texts = [text for text in names if all(isinstance(row.get(text), str) for row in rows)]
            text = next((one for one in TEXTS if one in texts), texts[0] if len(texts) == 1 else None)
            return None if text is None else Spans(text, name, where)
    return None
