"""ROUGE of texts, as one `evaluate.Metric`.

Import it inside functions: `import evaluate` takes seconds where transformers is not loaded yet.
"""

from functools import cache, lru_cache
from typing import Any

from hpo.tasks.metrics.base import TextMetric

KINDS = ("rouge1", "rouge2", "rougeL")

SOURCE = """@inproceedings{lin2004, title={ROUGE: A Package for Automatic Evaluation of Summaries},
author={Lin, Chin-Yew}, year={2004}}"""


class RougeMetrics(TextMetric):
    """rouge1, rouge2 and rougeL from 0 to 1: F-measures of the package `rouge-score`, with stemming, averaged.

    Predictions are texts, references tuples of texts, of which the best is used.
    """

    summary = "ROUGE F-measures."
    source = SOURCE

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        scores = [score(text, tuple(texts)) for text, texts in zip(predictions, references, strict=True)]
        rows = max(len(scores), 1)
        return {kind: sum(each[index] for each in scores) / rows for index, kind in enumerate(KINDS)}


# A bootstrap scores the same pairs 2,000 times.
@lru_cache(maxsize=1 << 17)
def score(prediction: str, references: tuple[str, ...]) -> tuple[float, ...]:
    """Return rouge1, rouge2 and rougeL of one text.

    >>> score("the cat sat", ("the cat",))
    (0.8, 0.6666666666666666, 0.8)
    """
    found = _scorer().score_multi(references, prediction)
    return tuple(float(found[kind].fmeasure) for kind in KINDS)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(KINDS), use_stemmer=True)
