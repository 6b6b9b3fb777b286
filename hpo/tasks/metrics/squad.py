"""Exact match and F1 of answers in words, as one `evaluate.Metric`.

A module of its own because `import evaluate` takes seconds before transformers is loaded: import it late.
"""

import re
import string
from collections import Counter
from functools import lru_cache
from typing import Any

from hpo.tasks.metrics.base import TextMetric

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = frozenset(string.punctuation)

SOURCE = """@article{rajpurkar2016, title={SQuAD: 100,000+ Questions for Machine Comprehension of Text},
author={Rajpurkar, Pranav and Zhang, Jian and Lopyrev, Konstantin and Liang, Percy}, year={2016}}"""


class AnswerMetrics(TextMetric):
    """exact_match and f1 from 0 to 1, as SQuAD (Rajpurkar et al., 2016) defines them, of the best true answer.

    Predictions are texts, references tuples of the texts that are right. Case, punctuation, articles and white space do
    not count. Equal to the official script of SQuAD 1.1, which `evaluate`'s `squad` runs, in parts of 1 for its 100.
    """

    summary = "Exact match and F1 of answers."
    source = SOURCE

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        scores = [score(said, tuple(right)) for said, right in zip(predictions, references, strict=True)]
        rows = max(len(scores), 1)
        return {"f1": sum(f1 for _, f1 in scores) / rows, "exact_match": sum(exact for exact, _ in scores) / rows}


# A bootstrap asks for the same pairs 2,000 times over.
@lru_cache(maxsize=1 << 17)
def score(said: str, right: tuple[str, ...]) -> tuple[float, float]:
    """Exact match and F1 of one answer, each by the right answer that suits it best.

    >>> score("The cat.", ("a cat", "dog"))
    (1.0, 1.0)
    """
    exact = max(float(normalise(said) == normalise(answer)) for answer in right)
    return exact, max(_f1(normalise(said).split(), normalise(answer).split()) for answer in right)


@lru_cache(maxsize=1 << 17)
def normalise(text: str) -> str:
    """A text in lower case without punctuation, articles and superfluous white space."""
    plain = "".join(sign for sign in text.lower() if sign not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", plain).split())


def _f1(said: list[str], right: list[str]) -> float:
    shared = (Counter(said) & Counter(right)).total()
    return 2 * shared / (len(said) + len(right)) if shared else 0.0  # also where nothing is left of either
