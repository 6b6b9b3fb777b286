"""Exports of annotation tools (Label Studio, doccano, Prodigy, spaCy, flair) as texts or words with labels."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from hpo.core.format import count
from hpo.data.formats.objects.spans import find_spans
from hpo.data.formats.source import SourceFile
from hpo.errors import DataError

PEEK = 1000  # rows that decide how all are read
WRAPPERS = ("data", "row", "fields", "example", "record", "_source")  # objects whose keys are the columns
BOXES = ("rectanglelabels", "polygonlabels", "brushlabels", "keypointlabels", "ellipselabels")

Row = Mapping[str, Any]


def interpret(rows: Iterable[Row], source: SourceFile) -> Iterator[Row]:
    """Yield rows as a task reads them; notes of what was left out are added to the source's at the end."""
    counts: Counter[str] = Counter()
    flat = _flattened(iter(rows), source, counts)
    first = list(islice(flat, PEEK))
    spans = find_spans(first, str(source.path))
    if spans is None:
        yield from chain(first, flat)
    else:
        yield from spans.convert(chain(first, flat))
        source.notes.extend(spans.notes())
    source.notes.extend(f"{count(number, 'row')} dropped: {why}" for why, number in counts.items())


def _flattened(rows: Iterator[Row], source: SourceFile, counts: Counter[str]) -> Iterator[Row]:
    first = list(islice(rows, PEEK))
    everything = chain(first, rows)
    if first and all(_is_label_studio(row) for row in first):
        return _from_label_studio(everything, source, counts)
    if any("_input_hash" in row or "answer" in row for row in first) and any(_is_prodigy(row) for row in first):
        return _from_prodigy(everything, counts)
    wrapped = [name for name in WRAPPERS if first and all(isinstance(row.get(name), Mapping) for row in first)]
    return _unwrapped(everything, wrapped[0]) if wrapped else everything


def _unwrapped(rows: Iterable[Row], wrapper: str) -> Iterator[Row]:
    """Yield rows with the keys of an inner object as columns."""
    for row in rows:
        inner = row.get(wrapper)
        others = {name: value for name, value in row.items() if name != wrapper}
        yield {**inner, **others} if isinstance(inner, Mapping) else row


def _is_label_studio(row: Row) -> bool:
    return isinstance(row.get("data"), Mapping) and isinstance(row.get("annotations", row.get("completions")), list)


def _from_label_studio(rows: Iterable[Row], source: SourceFile, counts: Counter[str]) -> Iterator[Row]:
    """Yield the data of each task with a column for each control of its first annotation that was not cancelled."""
    for number, row in enumerate(rows, 1):
        given = row.get("annotations", row.get("completions")) or []
        valid = [one for one in given if not one.get("was_cancelled") and one.get("result")]
        if not valid:
            counts["without an annotation"] += 1
            continue
        if len(valid) > 1:
            counts["annotations besides the first of a task"] += len(valid) - 1
        yield {**row["data"], **_controls(valid[0]["result"], f"{source.path}, task {number}")}


def _controls(results: Iterable[Row], where: str) -> dict[str, Any]:
    """Return {control: its choice, choices, number, text or spans} of one annotation."""
    found: dict[str, Any] = {}
    for result in results:
        value, kind, name = result.get("value") or {}, result.get("type"), str(result.get("from_name", "label"))
        if kind in BOXES:
            raise DataError(f"{where}: regions in images ({kind}): object detection is not a task of hpo.")
        if kind == "choices":
            choices = value.get("choices") or []
            found[name] = choices[0] if len(choices) == 1 else choices
        elif "start" in value and "end" in value:
            found.setdefault(name, []).append(value)
        elif kind in value:
            found[name] = value[kind][0] if isinstance(value[kind], list) and value[kind] else value[kind]
    return found


def _is_prodigy(row: Row) -> bool:
    return row.get("answer") in ("accept", "reject", "ignore") and bool({"spans", "label", "options"} & set(row))


def _from_prodigy(rows: Iterable[Row], counts: Counter[str]) -> Iterator[Row]:
    """Yield the accepted rows; `label` is what was chosen of several options."""
    for row in rows:
        if row.get("answer", "accept") != "accept":
            counts["not accepted by the annotator"] += 1
            continue
        accepted = row.get("accept")
        if isinstance(accepted, list) and "options" in row:
            row = {**row, "label": accepted[0] if len(accepted) == 1 else accepted}
        yield {name: value for name, value in row.items() if name not in ("accept", "options", "answer", "tokens")}


def from_spacy(pair: list[Any]) -> Row:
    """Return the row of spaCy's training format: [text, {"entities": […]}] or [text, {"cats": {label: score}}]."""
    text, annotation = pair
    if isinstance(annotation.get("cats"), Mapping):
        chosen = [label for label, score in annotation["cats"].items() if score and score >= 0.5]
        return {"text": text, "label": chosen[0] if len(chosen) == 1 else chosen}
    return {"text": text, **annotation}


def is_spacy(value: Any) -> bool:
    """Return whether a value is a pair of a text and an object."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], Mapping)
