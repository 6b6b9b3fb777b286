"""ROUGE of texts, as one `evaluate.Metric`.

A module of its own because `import evaluate` takes seconds before transformers is loaded: import it late.
"""

from functools import cache, lru_cache
from typing import Any

from hpo.tasks.metrics.base import TextMetric

KINDS = ("rouge1", "rouge2", "rougeL")

SOURCE = """@inproceedings{lin2004, title={ROUGE: A Package for Automatic Evaluation of Summaries},
author={Lin, Chin-Yew}, year={2004}}"""


class RougeMetrics(TextMetric):
    """rouge1, rouge2 and rougeL from 0 to 1: F-measures by the package `rouge-score`, words stemmed, mean of all texts.

    Predictions are texts, references tuples of right texts, of which the best counts.
    """

    summary = "ROUGE F-measures."
    source = SOURCE

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        scores = [score(said, tuple(right)) for said, right in zip(predictions, references, strict=True)]
        rows = max(len(scores), 1)
        return {kind: sum(each[place] for each in scores) / rows for place, kind in enumerate(KINDS)}


# A bootstrap asks for the same pairs 2,000 times over.
@lru_cache(maxsize=1 << 17)
def score(said: str, right: tuple[str, ...]) -> tuple[float, ...]:
    """rouge1, rouge2 and rougeL of one text.

    >>> score("the cat sat", ("the cat",))
    (0.8, 0.6666666666666666, 0.8)
    """
    found = _scorer().score_multi(right, said)
    return tuple(float(found[kind].fmeasure) for kind in KINDS)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(KINDS), use_stemmer=True)
