"""BLEU and chrF of texts, as one `evaluate.Metric`.

A module of its own because `import evaluate` takes seconds before transformers is loaded: import it late.
"""

from functools import cache, lru_cache
from typing import Any

import numpy as np

from hpo.tasks.metrics.base import TextMetric

SOURCE = """@inproceedings{post2018, title={A Call for Clarity in Reporting BLEU Scores},
author={Post, Matt}, year={2018}}
@inproceedings{popovic2015, title={chrF: character n-gram F-score for automatic MT evaluation},
author={Popović, Maja}, year={2015}}"""


class TranslationMetrics(TextMetric):
    """bleu and chrf from 0 to 100, of all texts together, as sacrebleu computes them with its defaults.

    Predictions are texts, references tuples of right texts.
    """

    summary = "BLEU and chrF."
    source = SOURCE

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        found = {}
        for name in ("bleu", "chrf"):
            # A bootstrap asks for the same pairs 2,000 times over: what is counted of each is kept, and added up as
            # sacrebleu's own bootstrap does it.
            each = [counts(name, said, tuple(right)) for said, right in zip(predictions, references, strict=True)]
            found[name] = float(_metric(name)._compute_score_from_stats(np.sum(each, axis=0).tolist()).score)
        return found


@lru_cache(maxsize=1 << 17)
def counts(name: str, said: str, right: tuple[str, ...]) -> tuple[int, ...]:
    """What a metric counts in one text: matching and all n-grams, and lengths."""
    (statistics,) = _metric(name)._extract_corpus_statistics([said], [[text] for text in right])
    return tuple(statistics)


@cache
def _metric(name: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return {"bleu": BLEU, "chrf": CHRF}[name]()
