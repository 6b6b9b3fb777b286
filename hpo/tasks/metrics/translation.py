"""BLEU and chrF of texts, as one `evaluate.Metric`.

Import it inside functions: `import evaluate` takes seconds where transformers is not loaded yet.
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
    """bleu and chrf from 0 to 100, over the full corpus, as computed by sacrebleu with its defaults.

    Predictions are texts, references tuples of texts.
    """

    summary = "BLEU and chrF."
    source = SOURCE

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        scores = {}
        for name in ("bleu", "chrf"):
            # A bootstrap scores the same pairs 2,000 times: the n-gram counts of each are cached and summed, as
            # in sacrebleu's own bootstrap.
            pairs = zip(predictions, references, strict=True)
            each = [count_ngrams(name, text, tuple(texts)) for text, texts in pairs]
            scores[name] = float(_metric(name)._compute_score_from_stats(np.sum(each, axis=0).tolist()).score)
        return scores


@lru_cache(maxsize=1 << 17)
def count_ngrams(name: str, prediction: str, references: tuple[str, ...]) -> tuple[int, ...]:
    """Return a metric's statistics of one text: matching and total n-grams, and lengths."""
    (statistics,) = _metric(name)._extract_corpus_statistics([prediction], [[text] for text in references])
    return tuple(statistics)


@cache
def _metric(name: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return {"bleu": BLEU, "chrf": CHRF}[name]()
