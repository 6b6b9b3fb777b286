"""The likelihood of texts under a language model, as one `evaluate.Metric`.

Import it inside functions: `import evaluate` takes seconds where transformers is not loaded yet.
"""

import math
from typing import Any

import datasets
import evaluate
import numpy as np

from hpo.tasks.metrics.base import DirectMetric


class LanguageMetrics(DirectMetric):
    """perplexity, e to the mean negative log-likelihood of a token, and bits_per_byte, comparable between tokenizers.

    Predictions are the sum of negative log-likelihoods (nats) of each text, references its numbers of tokens and bytes.
    """

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description="Perplexity and bits per byte.",
            citation="",
            inputs_description="predictions: negative log-likelihoods; references: tokens and bytes of each text.",
            features=datasets.Features({"predictions": number, "references": datasets.Sequence(number)}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        nats = float(np.sum(predictions))
        tokens, size = np.array(list(references), dtype=float).sum(axis=0).tolist()
        mean = nats / max(tokens, 1.0)
        # exp(700) is near the largest double: a run beyond it is reported as diverged.
        return {
            "perplexity": math.exp(mean) if mean < 700 else math.inf,
            "bits_per_byte": nats / math.log(2) / max(size, 1.0),
        }
