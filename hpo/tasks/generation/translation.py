"""Translation: a text → the same in another language, or in another style."""

from types import MappingProxyType
from typing import TYPE_CHECKING

from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.data.columns import column_values, holds_strings
from hpo.data.labels.targets import flatten_translations, recognize_pair
from hpo.tasks.baselines import copy_baseline
from hpo.tasks.generation.seq2seq import Seq2Seq
from hpo.tasks.task_data import TaskData

if TYPE_CHECKING:
    import evaluate


class Translation(Seq2Seq):
    """A text → the same in another language, or in another style."""

    name = "translation"
    pipeline_tag = "translation"
    default_metric = "bleu"
    hub_models = MappingProxyType(
        {
            "small": ("google-t5/t5-small", "google/flan-t5-small"),
            "base": ("google-t5/t5-base", "google/flan-t5-base"),
            "large": ("google-t5/t5-large", "google/flan-t5-large"),
        }
    )
    metric_directions = MappingProxyType({"bleu": "maximize", "chrf": "maximize", "loss": "minimize"})
    pairs = (
        (("source", "src", "source_text", "source_sentence"), ("target", "tgt", "target_text", "target_sentence")),
        (("en", "english"), ("de", "fr", "es", "it", "ro", "zh", "ru", "ja", "german", "french", "spanish")),
    )

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        if flatten_translations(rows) is not rows:
            return True
        found = recognize_pair(rows, config, self.pairs)
        names = {name for pair in self.pairs for side in pair for name in side}
        if found is None or not {name.lower() for name in found} <= names:
            return False
        # Classes may be in a column `target` too: they repeat.
        return all(holds_strings(rows, name) for name in found) and (
            len(set(column_values(rows, found[1]))) > len(rows) / 2
        )

    def build_metric(self, data: TaskData | None) -> "evaluate.Metric":
        from hpo.tasks.metrics.translation import TranslationMetrics

        return TranslationMetrics()

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        """Return the text unchanged."""
        return copy_baseline("the text as it is", str, data, self.scorer(metric))
