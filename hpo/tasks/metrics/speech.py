"""Word and character error rates, as one `evaluate.Metric`.

Import it inside functions: `import evaluate` takes seconds where transformers is not loaded yet.
"""

from typing import Any

import datasets
import evaluate

from hpo.data.optional import require_module
from hpo.tasks.metrics.base import DirectMetric

SOURCE = """@article{levenshtein1966, title={Binary codes capable of correcting deletions, insertions, and reversals},
author={Levenshtein, V. I.}, journal={Soviet Physics Doklady}, year={1966}}"""


class SpeechMetrics(DirectMetric):
    """wer and cer, by jiwer: insertions, deletions and substitutions per word (letter) of the reference."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Word and character error rates.",
            citation=SOURCE,
            inputs_description="predictions, references: texts, with single spaces between words.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        jiwer = require_module("jiwer", "audio", "The word error rate")
        texts = list(references), list(predictions)
        return {"wer": float(jiwer.wer(*texts)), "cer": float(jiwer.cer(*texts))}
