"""Metrics of tagged words, as one `evaluate.Metric`.

Import it inside functions: `import evaluate` takes seconds where transformers is not loaded yet.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from operator import eq
from typing import Any

import datasets
import evaluate

from hpo.data.labels.tags import PREFIXES
from hpo.tasks.metrics.base import DirectMetric

Entity = tuple[str, int, int]


class EntityMetrics(DirectMetric):
    """precision, recall and f1 of full entities (micro), f1_macro, and the accuracy of tags, equal to seqeval's.

    Predictions and references are tuples of tag numbers, one per row; `names` are the tags. Without names they are
    tuples of tags. A ratio with denominator 0 is 0. Entities are parsed as conlleval does (Tjong Kim Sang, 2000).
    """

    def __init__(self, names: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        tags = tuple(names)

        # A bootstrap scores the same rows 2,000 times.
        @lru_cache(maxsize=1 << 17)
        def found(row: tuple[Any, ...]) -> frozenset[Entity]:
            return frozenset(entities([tags[tag] for tag in row] if tags else row))

        self._entities = found

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.Sequence(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description="Precision, recall and F1 of entities.",
            citation="",
            inputs_description="predictions, references: the tags of each row.",
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        hits: Counter[str] = Counter()
        found: Counter[str] = Counter()
        expected: Counter[str] = Counter()
        correct = words = 0
        for predicted, true in zip(map(tuple, predictions), map(tuple, references), strict=True):
            if len(predicted) != len(true):
                raise ValueError(f"{len(predicted)} predicted tags for {len(true)} words.")
            correct += sum(map(eq, predicted, true))
            words += len(true)
            one, other = self._entities(predicted), self._entities(true)
            found.update(kind for kind, _, _ in one)
            expected.update(kind for kind, _, _ in other)
            hits.update(kind for kind, _, _ in one & other)
        kinds = set(found) | set(expected)
        each = [_f1(hits[kind], found[kind], expected[kind]) for kind in kinds]
        return {
            "f1": _f1(hits.total(), found.total(), expected.total()),
            "precision": hits.total() / found.total() if found else 0.0,
            "recall": hits.total() / expected.total() if expected else 0.0,
            "f1_macro": sum(each) / len(each) if each else 0.0,
            "accuracy": correct / words if words else 0.0,
        }


def entities(tags: Sequence[str]) -> list[Entity]:
    """Return (kind, first word, last word) of each entity in tags such as B-person, I-person, O.

    Tags are IO, IOB, IOBES, BILOU or BMES (`PREFIXES`).

    >>> entities(["B-place", "I-place", "O", "B-person"])
    [('place', 0, 1), ('person', 3, 3)]

    A tag without a prefix, such as a part of speech, is an entity of one word.
    """
    found: list[Entity] = []
    start, before, of = -1, "O", ""
    for index, tag in enumerate((*tags, "O")):
        prefix, kind = _parts(tag)
        ends = before in "ES" or prefix in "BSO" or kind != of
        if before != "O" and ends:
            found.append((of, start, index - 1))
        if prefix != "O" and (before == "O" or ends):
            start = index
        before, of = prefix, kind
    return found


@lru_cache(maxsize=4096)
def _parts(tag: str) -> tuple[str, str]:
    prefix, _, kind = tag.partition("-")
    if tag == "O":
        return "O", ""
    return (PREFIXES[prefix], kind or "_") if prefix in PREFIXES else ("S", tag)


def _f1(hits: int, found: int, expected: int) -> float:
    return 2 * hits / (found + expected) if found + expected else 0.0
