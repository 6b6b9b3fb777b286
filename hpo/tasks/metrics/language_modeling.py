"""How well a language model foretells texts, as one `evaluate.Metric`.

A module of its own because `import evaluate` takes seconds before transformers is loaded: import it late.
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
        # e to the 700 is the most that a double holds: such a run is told as diverged.
        return {
            "perplexity": math.exp(mean) if mean < 700 else math.inf,
            "bits_per_byte": nats / math.log(2) / max(size, 1.0),
        }
