"""Metrics of tagged words, as one `evaluate.Metric`.

A module of its own because `import evaluate` takes seconds before transformers is loaded: import it late.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from operator import eq
from typing import Any

import datasets
import evaluate

from hpo.tasks.metrics.base import DirectMetric

Entity = tuple[str, int, int]


class EntityMetrics(DirectMetric):
    """precision, recall and f1 of whole entities (micro), f1_macro, and the accuracy of tags, equal to seqeval's.

    Predictions and references are tuples of tag numbers, one a row; `names` are the tags. Without names they are the
    tags themselves. A ratio without a case counts 0. Entities are read as conlleval does (Tjong Kim Sang, 2000).
    """

    def __init__(self, names: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        tags = tuple(names)

        # A bootstrap asks for the same rows 2,000 times over.
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
        said: Counter[str] = Counter()
        there: Counter[str] = Counter()
        right = words = 0
        for predicted, true in zip(map(tuple, predictions), map(tuple, references), strict=True):
            if len(predicted) != len(true):
                raise ValueError(f"{len(predicted)} predicted tags for {len(true)} words.")
            right += sum(map(eq, predicted, true))
            words += len(true)
            one, other = self._entities(predicted), self._entities(true)
            said.update(kind for kind, _, _ in one)
            there.update(kind for kind, _, _ in other)
            hits.update(kind for kind, _, _ in one & other)
        kinds = set(said) | set(there)
        each = [_f1(hits[kind], said[kind], there[kind]) for kind in kinds]
        return {
            "f1": _f1(hits.total(), said.total(), there.total()),
            "precision": hits.total() / said.total() if said else 0.0,
            "recall": hits.total() / there.total() if there else 0.0,
            "f1_macro": sum(each) / len(each) if each else 0.0,
            "accuracy": right / words if words else 0.0,
        }


def entities(tags: Sequence[str]) -> list[Entity]:
    """(kind, first word, last word) of each entity in tags such as B-person, I-person, O; E- and S- are known too.

    >>> entities(["B-place", "I-place", "O", "B-person"])
    [('place', 0, 1), ('person', 3, 3)]

    A tag with nothing before it, such as a part of speech, is an entity of its one word.
    """
    found: list[Entity] = []
    begun, before, of = -1, "O", ""
    for place, tag in enumerate((*tags, "O")):
        prefix, kind = _parts(tag)
        ends = before in "ES" or prefix in "BSO" or kind != of
        if before != "O" and ends:
            found.append((of, begun, place - 1))
        if prefix != "O" and (before == "O" or ends):
            begun = place
        before, of = prefix, kind
    return found


@lru_cache(maxsize=4096)
def _parts(tag: str) -> tuple[str, str]:
    prefix, _, kind = tag.partition("-")
    if tag == "O":
        return "O", ""
    return (prefix, kind or "_") if prefix in ("B", "I", "E", "S") else ("S", tag)


def _f1(hits: int, said: int, there: int) -> float:
    return 2 * hits / (said + there) if said + there else 0.0
