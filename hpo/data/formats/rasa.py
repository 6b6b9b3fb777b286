"""Rasa's training data: intents with their example texts, as YAML."""

import re
from typing import Any

import pyarrow as pa
from datasets import Dataset

from hpo.data.formats.source import Content, Format, SourceFile
from hpo.errors import DataError

SUFFIXES = frozenset({".yml", ".yaml"})
ENTITY = re.compile(r"\[([^\]]*)\](?:\([^)]*\)|\{[^}]*\})")  # [Oslo](city) or [Oslo]{"entity": "city"}


def _recognizes(source: SourceFile) -> bool:
    return source.suffix in SUFFIXES or any(re.match(r"nlu:\s*(#.*)?$", line) for line in source.lines)


def _read(source: SourceFile) -> Content:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        found: Any = YAML(typ="safe", pure=True).load(source.text)
    except (YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{source.path}: not valid YAML: {reason}") from None
    items = found.get("nlu") if isinstance(found, dict) else None
    if not isinstance(items, list):
        raise DataError(
            f"{source.path}: of YAML files hpo reads Rasa's training data, with the key `nlu`. Use a csv or jsonl file."
        )
    texts: list[str] = []
    labels: list[str] = []
    skipped = sum(not (isinstance(item, dict) and "intent" in item) for item in items)
    marked = 0
    for item in items:
        if not (isinstance(item, dict) and "intent" in item):
            continue
        for example in _examples(item.get("examples")):
            plain = ENTITY.sub(r"\1", example)
            marked += plain != example
            texts.append(plain)
            labels.append(str(item["intent"]))
    notes = [f"{skipped} entries without an intent (lookups, synonyms, regexes) are not used"] if skipped else []
    notes += [f"entities marked in {marked} examples are read as plain text"] if marked else []
    return Content({"": Dataset(pa.table({"text": pa.array(texts, pa.string()), "label": labels}))}, tuple(notes))


def _examples(given: Any) -> list[str]:
    if isinstance(given, str):
        return [line.strip().removeprefix("-").strip() for line in given.splitlines() if line.strip().strip("-")]
    return [str(one["text"] if isinstance(one, dict) else one).strip() for one in given or ()]


RASA = Format("Rasa YAML", SUFFIXES, _recognizes, _read)
