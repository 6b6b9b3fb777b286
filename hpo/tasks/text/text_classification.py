"""Text classification: one or two texts → one of several classes."""

from datasets import Dataset

from hpo.config.study import DataConfig
from hpo.tasks.baselines import tfidf_baseline
from hpo.tasks.classification import Classification
from hpo.tasks.task_data import TaskData
from hpo.tasks.text.base import TextTask


class TextClassification(Classification, TextTask):
    """One or two texts → a class."""

    name = "text-classification"
    limitations = "It knows the classes above only, and assigns one of them to any text."

    def matches(self, rows: Dataset, config: DataConfig) -> bool:
        return True

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        return tfidf_baseline(data, self.scorer(metric))
