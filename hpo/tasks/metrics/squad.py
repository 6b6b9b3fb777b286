"""Exact match and F1 of answers in words, as one `evaluate.Metric`.

Import it inside functions: `import evaluate` takes seconds where transformers is not loaded yet.
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
    """exact_match and f1 from 0 to 1, as defined by SQuAD (Rajpurkar et al., 2016), of the best reference answer.

    Predictions are texts, references tuples of texts. Case, punctuation, articles and white space are ignored. Equal to
    the official script of SQuAD 1.1, which `evaluate`'s `squad` runs, but from 0 to 1 rather than to 100.
    """

    summary = "Exact match and F1 of answers."
    source = SOURCE

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        scores = [score(answer, tuple(texts)) for answer, texts in zip(predictions, references, strict=True)]
        rows = max(len(scores), 1)
        return {"f1": sum(f1 for _, f1 in scores) / rows, "exact_match": sum(exact for exact, _ in scores) / rows}


# A bootstrap scores the same pairs 2,000 times.
@lru_cache(maxsize=1 << 17)
def score(prediction: str, references: tuple[str, ...]) -> tuple[float, float]:
    """Return exact match and F1 of one answer, each with its best reference.

    >>> score("The cat.", ("a cat", "dog"))
    (1.0, 1.0)
    """
    exact = max(float(normalize_answer(prediction) == normalize_answer(answer)) for answer in references)
    words = normalize_answer(prediction).split()
    return exact, max(_f1(words, normalize_answer(answer).split()) for answer in references)


@lru_cache(maxsize=1 << 17)
def normalize_answer(text: str) -> str:
    """Return a text in lower case, without punctuation, articles and redundant white space."""
    plain = "".join(sign for sign in text.lower() if sign not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", plain).split())


def _f1(predicted: list[str], reference: list[str]) -> float:
    shared = (Counter(predicted) & Counter(reference)).total()
    return 2 * shared / (len(predicted) + len(reference)) if shared else 0.0  # also where both are empty
