"""Summarization: a text → a summary of it."""

from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING

from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.data.columns import LABELS, column_values, holds_strings
from hpo.data.labels.targets import recognize_pair
from hpo.tasks.baselines import copy_baseline, sentences
from hpo.tasks.generation.seq2seq import Seq2Seq
from hpo.tasks.task_data import TaskData

if TYPE_CHECKING:
    import evaluate

SUMMARIES = ("summary", "summaries", "highlights", "tldr")  # no other task has columns of these names


class Summarization(Seq2Seq):
    """A text → a summary of it."""

    name = "summarization"
    pipeline_tag = "summarization"
    default_metric = "rougeL"
    hub_models = MappingProxyType(
        {
            "small": ("google-t5/t5-small", "google/flan-t5-small"),
            "base": ("facebook/bart-base", "google/flan-t5-base"),
            "large": ("facebook/bart-large", "google/flan-t5-large"),
        }
    )
    metric_directions = MappingProxyType(
        {"rouge1": "maximize", "rouge2": "maximize", "rougeL": "maximize", "loss": "minimize"}
    )
    pairs = (
        (
            (
                "document",
                "article",
                "dialogue",
                "text",
                "source",
                "abstract",
                "body",
                "content",
                "report",
                "transcript",
            ),
            ("summary", "highlights", "tldr", "summaries", "abstract", "headline", "title", "target"),
        ),
    )

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        found = recognize_pair(rows, config, self.pairs)
        if found is None or not holds_strings(rows, found[0]) or found[1].lower() not in SUMMARIES:
            return False
        # A review has a summary too, but its label is a class or a number of stars.
        classes = {name for name in LABELS if name not in ("target", "output", "topic", "tag")}
        return config.label is not None or not classes & {name.lower() for name in rows.column_names}

    def build_metric(self, data: TaskData | None) -> "evaluate.Metric":
        from hpo.tasks.metrics.rouge import RougeMetrics

        return RougeMetrics()

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        """Return the text's first sentences, as many as a summary of the training split most often has."""
        many = Counter(len(sentences(texts[0])) for texts in column_values(data.train, "label")).most_common(1)[0][0]
        name = "the text's first sentence" if many == 1 else f"the text's first {many} sentences"
        return copy_baseline(name, lambda text: " ".join(sentences(text)[:many]), data, self.scorer(metric))
