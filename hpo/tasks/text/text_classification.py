"""Text classification: one or two texts → one class of several."""

from collections.abc import Mapping, Sequence

from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.data.checks import count_conflicts
from hpo.tasks.baselines import tfidf_baseline
from hpo.tasks.classification import Classification
from hpo.tasks.task_data import TaskData
from hpo.tasks.text.base import TextTask


class TextClassification(Classification, TextTask):
    """One or two texts → a class. See `Task` for what each method promises."""

    name = "text-classification"
    limitations = "It knows the classes above only, and gives one of them to any text."

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        return True

    def check_labels(
        self, splits: Mapping[str, Dataset], names: Sequence[str], origins: Mapping[str, str]
    ) -> list[str]:
        return [*super().check_labels(splits, names, origins), *count_conflicts(splits)]

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        return tfidf_baseline(data, self.scorer(metric))
