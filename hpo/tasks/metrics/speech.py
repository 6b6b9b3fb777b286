"""Word and character error rates, as one `evaluate.Metric`.

A module of its own because `import evaluate` takes seconds before transformers is loaded: import it late.
"""

from typing import Any

import datasets
import evaluate

from hpo.data.optional import require_module
from hpo.tasks.metrics.base import DirectMetric

SOURCE = """@article{levenshtein1966, title={Binary codes capable of correcting deletions, insertions, and reversals},
author={Levenshtein, V. I.}, journal={Soviet Physics Doklady}, year={1966}}"""


class SpeechMetrics(DirectMetric):
    """wer and cer, by jiwer: the words (letters) to insert, delete or exchange, for each one that was said."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Word and character error rates.",
            citation=SOURCE,
            inputs_description="predictions, references: texts, their words one space apart.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        jiwer = require_module("jiwer", "audio", "The word error rate")
        said, right = list(predictions), list(references)
        return {"wer": float(jiwer.wer(right, said)), "cer": float(jiwer.cer(right, said))}
